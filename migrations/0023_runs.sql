-- One-off dynos that people start: those that run, and the last ones that have ended.
CREATE TABLE runs (
    id TEXT NOT NULL PRIMARY KEY,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    -- The number of the release that it runs.
    release_version BIGINT NOT NULL,
    -- run.1234 in its two parts.
    process_type TEXT NOT NULL,
    number BIGINT NOT NULL,
    command TEXT NOT NULL,
    size TEXT NOT NULL,
    -- Somebody is at its input and output, and it ends with them.
    attached BIGINT NOT NULL,
    -- Who started it, by their address at that time; null if the platform did.
    user_email TEXT,
    -- What the engine calls it.
    engine_id TEXT NOT NULL UNIQUE,
    -- starting, up or complete
    state TEXT NOT NULL,
    -- How it ended, as JSON; null while it runs, and if nobody knows.
    exit TEXT,
    -- Why it never ran, or why nobody knows how it ended.
    failure TEXT,
    -- In milliseconds.
    time_limit BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    ended_at BIGINT
);
CREATE INDEX runs_by_time ON runs (app_id, created_at, id);
-- Of those that have not ended each has a name of its own.
CREATE UNIQUE INDEX runs_open ON runs (app_id, process_type, number) WHERE ended_at IS NULL;
