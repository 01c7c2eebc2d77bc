-- Repositories elsewhere that apps are deployed from.
CREATE TABLE repositories (
    id TEXT NOT NULL PRIMARY KEY,
    app_id TEXT NOT NULL UNIQUE REFERENCES apps (id) ON DELETE CASCADE,
    -- Who linked it: what its webhook deploys is theirs.
    user_id TEXT NOT NULL REFERENCES users (id),
    -- Sealed: it may hold a password.
    url TEXT NOT NULL,
    branch TEXT NOT NULL,
    -- Sealed: what signs the webhook's requests.
    secret TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
