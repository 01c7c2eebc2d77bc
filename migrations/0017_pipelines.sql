-- Pipelines: apps that are the stages of one product.
CREATE TABLE pipelines (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    -- The owner, unless a team is.
    user_id TEXT NOT NULL REFERENCES users (id),
    team_id TEXT REFERENCES teams (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX pipelines_by_user ON pipelines (user_id);
CREATE INDEX pipelines_by_team ON pipelines (team_id);

-- Which app is which stage; an app is one stage of one pipeline.
CREATE TABLE pipeline_couplings (
    id TEXT NOT NULL PRIMARY KEY,
    pipeline_id TEXT NOT NULL REFERENCES pipelines (id) ON DELETE CASCADE,
    app_id TEXT NOT NULL UNIQUE REFERENCES apps (id) ON DELETE CASCADE,
    -- test, review, development, staging or production.
    stage TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX pipeline_couplings_by_pipeline ON pipeline_couplings (pipeline_id);
