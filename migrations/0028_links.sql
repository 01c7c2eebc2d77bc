-- Which app reaches which other one.
CREATE TABLE app_links (
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    target_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    -- Of the config var that says how: SHOP of SHOP_URL.
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (app_id, target_id)
);
CREATE UNIQUE INDEX app_links_by_name ON app_links (app_id, name);

-- The port by which those that are linked to an app ask for it. It stays the app's own.
CREATE TABLE link_ports (
    app_id TEXT NOT NULL PRIMARY KEY REFERENCES apps (id) ON DELETE CASCADE,
    port BIGINT NOT NULL UNIQUE
);
