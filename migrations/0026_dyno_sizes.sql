-- Sizes of dynos beside those that every platform has.
CREATE TABLE dyno_sizes (
    id TEXT NOT NULL PRIMARY KEY,
    -- In lower case: a part of what the engine calls a workload.
    name TEXT NOT NULL UNIQUE,
    memory_bytes BIGINT NOT NULL,
    -- Its memory is kept free for it alone.
    dedicated BIGINT NOT NULL,
    -- Thousandths of a core.
    cpu_millis BIGINT NOT NULL,
    cpu_weight BIGINT NOT NULL,
    -- Processes and threads.
    pids BIGINT NOT NULL,
    disk_bytes BIGINT NOT NULL,
    -- On that disk.
    files BIGINT NOT NULL,
    -- By one process.
    open_files BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
