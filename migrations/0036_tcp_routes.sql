-- Ports of the platform's whose connections apps take as they are.
CREATE TABLE tcp_routes (
    id TEXT NOT NULL PRIMARY KEY,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    process_type TEXT NOT NULL,
    port BIGINT NOT NULL,
    -- Only connections over TLS that want this host name; empty: those that want none of another row.
    host TEXT NOT NULL,
    -- 1: routers end TLS.
    terminate BIGINT NOT NULL,
    -- Of instances; null is that of their PORT.
    target_port BIGINT,
    -- Milliseconds of silence after which a connection ends.
    idle BIGINT NOT NULL,
    -- The version of the PROXY protocol by which instances are told who comes; null if they are not.
    introduce TEXT,
    created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX tcp_routes_by_port ON tcp_routes (port, host);
CREATE INDEX tcp_routes_by_app ON tcp_routes (app_id, port);

-- Whoever gives out a port changes it first: one at a time.
INSERT INTO counters (name, value) VALUES ('tcp_routes', 0);
