-- What is set of how a process type scales by itself: names and texts, JSON. The rest is as its app.json says, or as it is by default.
CREATE TABLE scaling_policies (
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    process_type TEXT NOT NULL,
    policy TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (app_id, process_type)
);
