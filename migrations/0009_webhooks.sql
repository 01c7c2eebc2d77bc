-- Addresses that are told of what happens to an app.
CREATE TABLE webhooks (
    id TEXT NOT NULL PRIMARY KEY,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    url TEXT NOT NULL,
    -- JSON array of kinds of things: release, build …
    include TEXT NOT NULL,
    -- notify (one attempt) or sync (until it is delivered).
    level TEXT NOT NULL,
    -- Sealed: signs every delivery.
    secret TEXT NOT NULL,
    -- Sealed: the Authorization header of every delivery; null for none.
    authorization_header TEXT,
    -- Events up to this number have their deliveries.
    sequence BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX webhooks_by_app ON webhooks (app_id);

-- What a webhook was told, or is to be told.
CREATE TABLE webhook_deliveries (
    id TEXT NOT NULL PRIMARY KEY,
    webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    -- The event.
    sequence BIGINT NOT NULL,
    -- pending, retrying, succeeded or failed.
    status TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    -- Null once it is over.
    next_attempt_at BIGINT,
    -- Of the last attempt: when, the status of the answer, what was wrong.
    attempted_at BIGINT,
    code BIGINT,
    error TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (webhook_id, sequence)
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_attempt_at);
