-- Everything that was changed, in the order in which it was committed: the audit log, the change feed, and what webhooks tell.
-- Names nobody by foreign key: what happened stays true when who did it, and to what, is gone.
CREATE TABLE events (
    -- From 1, without gaps.
    sequence BIGINT NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    -- Null for what belongs to no app.
    app_id TEXT,
    -- Its name at that time.
    app_name TEXT,
    -- Null for what the platform did by itself.
    actor_id TEXT,
    actor_email TEXT,
    -- How the actor came in: token <id>, session, machine …
    via TEXT,
    -- The IP address of the request.
    address TEXT,
    request_id TEXT,
    -- app, release, domain …
    resource TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    -- create, update or destroy.
    action TEXT NOT NULL,
    -- JSON object: what changed, without secrets.
    data TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX events_by_app ON events (app_id, sequence);
CREATE INDEX events_by_actor ON events (actor_id, sequence);

-- Counting it up is the last statement of every transaction that has events.
INSERT INTO counters (name, value) VALUES ('events', 0);

-- Whoever keeps the platform itself: the first user was, until somebody says otherwise.
ALTER TABLE users ADD COLUMN operator BIGINT NOT NULL DEFAULT 0;
UPDATE users SET operator = 1 WHERE id = (SELECT id FROM users ORDER BY created_at, id LIMIT 1);
