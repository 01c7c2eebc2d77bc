-- How each release took the place of the one before it, or did not.
CREATE TABLE rollouts (
    release_id TEXT NOT NULL PRIMARY KEY REFERENCES releases (id) ON DELETE CASCADE,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    version BIGINT NOT NULL,
    -- The number of the release that was live when it began; null if there was none.
    replaces BIGINT,
    -- The policy as it was when it began: every setting and its text, as model::RolloutPolicy reads it.
    policy TEXT NOT NULL,
    -- running, routing, returning, watching, leaving, succeeded, failed or returned
    state TEXT NOT NULL,
    -- Of a canary: which step, and when its instances were healthy and had their requests.
    step BIGINT NOT NULL,
    reached_at BIGINT,
    -- 1: somebody ended it.
    aborted BIGINT NOT NULL,
    -- 1: a router did not say in time that it serves the release.
    unconfirmed BIGINT NOT NULL,
    -- What its requests came to: JSON, null before anybody counted.
    traffic TEXT,
    -- Why it failed: JSON.
    failure TEXT,
    -- The release that took the app back, if one did.
    returned_by BIGINT,
    begun_at BIGINT NOT NULL,
    live_at BIGINT,
    ended_at BIGINT
);
CREATE INDEX rollouts_by_app ON rollouts (app_id, version);
CREATE INDEX rollouts_by_state ON rollouts (state);

-- What is set of an app's policy: names and texts, JSON. The rest is as its app.json says, or as it is by default.
CREATE TABLE rollout_policies (
    app_id TEXT NOT NULL PRIMARY KEY REFERENCES apps (id) ON DELETE CASCADE,
    policy TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);
