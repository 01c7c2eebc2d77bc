-- What apps want to have run at certain times.
CREATE TABLE jobs (
    id TEXT NOT NULL PRIMARY KEY,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    -- Settings that the app.json of the current release has: names and texts, JSON; null if it has no such job.
    declared TEXT,
    -- Settings that somebody set: names and texts, JSON. They count before those of app.json.
    settings TEXT NOT NULL,
    -- 1: somebody made it, so that it stays when app.json has no such job.
    made BIGINT NOT NULL,
    -- 1: it is gone once nothing of it runs.
    removed BIGINT NOT NULL,
    -- When it is due next; null if it never is by itself.
    next_due BIGINT,
    -- The number of its newest run.
    last_number BIGINT NOT NULL,
    -- What went wrong last, and when; null since a run succeeded.
    alert TEXT,
    alert_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (app_id, name)
);
CREATE INDEX jobs_due ON jobs (next_due);

-- The runs of jobs: those that are not over, and the last ones that are.
CREATE TABLE job_runs (
    id TEXT NOT NULL PRIMARY KEY,
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    -- 1, 2, 3 … of its job.
    number BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    -- schedule, misfire or manual
    cause TEXT NOT NULL,
    -- Who asked for it, by their address at that time; null if its schedule did.
    user_email TEXT,
    -- queued, running, succeeded, failed, stopped or skipped
    state TEXT NOT NULL,
    -- Why it is to end before its time; null if it is not.
    stop TEXT,
    -- 1: it was told of that it had not begun in time.
    late BIGINT NOT NULL,
    -- The number of the release that it runs; null before it begins.
    release_version BIGINT,
    -- What becomes of each of its shards: JSON.
    shards TEXT NOT NULL,
    -- Why it failed, did not run, or waits.
    failure TEXT,
    queued_at BIGINT NOT NULL,
    begun_at BIGINT,
    ended_at BIGINT
);
CREATE UNIQUE INDEX job_runs_by_number ON job_runs (job_id, number);
CREATE INDEX job_runs_open ON job_runs (state, queued_at, id) WHERE ended_at IS NULL;

-- Apps that have another release than the one whose app.json their jobs are of.
CREATE TABLE stale_jobs (app_id TEXT NOT NULL PRIMARY KEY REFERENCES apps (id) ON DELETE CASCADE);
INSERT INTO stale_jobs (app_id) SELECT id FROM apps;
INSERT INTO counters (name, value) VALUES ('jobs', 0);
