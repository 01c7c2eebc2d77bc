-- Changes of formations that the platform made by itself, with the numbers behind them; the newest of each process type.
CREATE TABLE scalings (
    id TEXT NOT NULL PRIMARY KEY,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    process_type TEXT NOT NULL,
    decided_at BIGINT NOT NULL,
    quantity_before BIGINT NOT NULL,
    quantity_after BIGINT NOT NULL,
    -- p95, rps, cpu or memory
    metric TEXT NOT NULL,
    -- What was measured, in the metric's unit; null if it was not for that.
    value TEXT,
    target BIGINT NOT NULL,
    -- One sentence.
    reason TEXT NOT NULL
);
CREATE INDEX scalings_by_type ON scalings (app_id, process_type, decided_at);
