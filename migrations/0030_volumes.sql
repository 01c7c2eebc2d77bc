-- What apps keep on disk: each volume is there for the dynos of one process type, and outlives every release.
CREATE TABLE volumes (
    id TEXT NOT NULL PRIMARY KEY,
    -- Whose it is; null: no app's, it is kept for the user or the team.
    app_id TEXT REFERENCES apps (id),
    user_id TEXT REFERENCES users (id),
    team_id TEXT REFERENCES teams (id),
    -- What its app was called, of one that is kept.
    app_name TEXT,
    name TEXT NOT NULL,
    process_type TEXT NOT NULL,
    -- Where dynos see it.
    path TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    -- What the engine calls it. A restore puts another one in its place.
    disk_id TEXT NOT NULL UNIQUE,
    -- How often it had to be mounted anew, by a release.
    mounts BIGINT NOT NULL,
    -- The number of its newest snapshot.
    last_snapshot BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX volumes_by_name ON volumes (app_id, name);

-- What was in volumes at some moments.
CREATE TABLE volume_snapshots (
    -- What the engine calls it.
    id TEXT NOT NULL PRIMARY KEY,
    volume_id TEXT NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
    -- 1, 2, 3 … of its volume.
    number BIGINT NOT NULL,
    -- Why there is one, for people; null if somebody asked for it.
    reason TEXT,
    -- Who made it, by their address at that time.
    user_email TEXT NOT NULL,
    -- What it took of the disk when it was made.
    bytes BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (volume_id, number)
);

-- What the engine may still have and nobody needs: removed once no release that runs or is to run mounts it. What is being made is
-- here, too, until it is whole.
CREATE TABLE doomed_disks (
    id TEXT NOT NULL PRIMARY KEY,
    -- It stays until then.
    due_at BIGINT NOT NULL
);

-- The volumes that its dynos mount: JSON; null in releases that are older than volumes.
ALTER TABLE releases ADD COLUMN volumes TEXT;
