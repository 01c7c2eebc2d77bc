-- Backing services. A row is there until the server, its data and its backups are gone, so app_id is no foreign key: the app
-- may be gone before.
CREATE TABLE addons (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    -- The app that it was made for, and that it ends with.
    app_id TEXT NOT NULL,
    -- postgres, redis, …
    kind TEXT NOT NULL,
    plan TEXT NOT NULL,
    -- Uid and gid of its server, from the same numbers as those of apps.
    uid BIGINT NOT NULL UNIQUE,
    -- provisioning, provisioned, deprovisioned (it never came up) or deprovisioning (on its way out).
    state TEXT NOT NULL,
    -- Why it never came up, for people.
    failure TEXT,
    -- Sealed JSON object: what a client needs beside the address.
    credentials TEXT NOT NULL,
    -- diffID of the server's root file system, once it is made.
    layer TEXT,
    -- Number of its workload; another plan or another image makes another one.
    generation BIGINT NOT NULL,
    -- The server's host, once it has one.
    address TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX addons_by_app ON addons (app_id);

-- Which apps use an add-on, and under which name: DATABASE makes DATABASE_URL.
CREATE TABLE addon_attachments (
    id TEXT NOT NULL PRIMARY KEY,
    addon_id TEXT NOT NULL REFERENCES addons (id) ON DELETE CASCADE,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (app_id, name)
);
CREATE INDEX addon_attachments_by_addon ON addon_attachments (addon_id);

-- Backups of an add-on's data, and restores of them.
CREATE TABLE addon_transfers (
    id TEXT NOT NULL PRIMARY KEY,
    addon_id TEXT NOT NULL REFERENCES addons (id) ON DELETE CASCADE,
    -- From 1, without gaps, for all actions of an add-on together: b001, r002.
    number BIGINT NOT NULL,
    -- capture, upload or restore.
    action TEXT NOT NULL,
    -- The backup that a restore takes; null for the others.
    source BIGINT,
    -- running, succeeded or failed; leaves running once.
    state TEXT NOT NULL,
    -- Why it failed, for people.
    failure TEXT,
    bytes BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    finished_at BIGINT,
    UNIQUE (addon_id, number)
);

-- JSON object: name of each config var that comes from an attachment → id of the add-on.
ALTER TABLE releases ADD COLUMN attached TEXT;
