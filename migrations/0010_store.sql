-- What is known about the database itself, by name: which version of the platform last migrated it.
CREATE TABLE facts (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- Who does what only one controller may do at a time. A row stays for ever, since its epoch only grows.
CREATE TABLE leases (
    -- rollout, addons …
    duty TEXT NOT NULL PRIMARY KEY,
    -- The controller that has it, or had it last.
    holder TEXT NOT NULL,
    -- Grows with every holder: what an earlier one still tries to write is refused by it.
    epoch BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- Lists are read in parts: each order that they come in has an index.
DROP INDEX builds_by_app;
CREATE INDEX builds_by_app_and_time ON builds (app_id, created_at, id);
CREATE INDEX builds_by_status ON builds (status);
