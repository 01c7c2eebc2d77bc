-- What apps may reach outside, as JSON (model::Egress). No row: everything that any app may.
CREATE TABLE egress_policies (
    app_id TEXT NOT NULL PRIMARY KEY REFERENCES apps (id) ON DELETE CASCADE,
    policy TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);
