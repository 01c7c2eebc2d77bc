CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,
    -- Argon2id; null for users who get in by token only.
    password_hash TEXT,
    last_login_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- SHA-256 of the token in hex; the token itself is shown once and kept nowhere.
    digest TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    expires_at BIGINT,
    created_at BIGINT NOT NULL
);
CREATE INDEX tokens_by_user ON tokens (user_id);

CREATE TABLE apps (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    -- Builds and instances of the app run as this uid and gid, which no other app ever had.
    uid BIGINT NOT NULL UNIQUE,
    maintenance BIGINT NOT NULL,
    stack TEXT NOT NULL,
    -- JSON array of the buildpacks that the user chose; empty means detect.
    buildpacks TEXT NOT NULL,
    -- Number of the newest release. Counting it up is the first statement of every transaction that makes a release.
    last_version BIGINT NOT NULL,
    -- The release that really serves: it succeeded, and no later one has.
    current_release_id TEXT NOT NULL,
    released_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- Who may work on an app. Exactly one row of an app has the role 'owner'.
CREATE TABLE collaborators (
    id TEXT NOT NULL PRIMARY KEY,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id),
    role TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (app_id, user_id)
);
CREATE INDEX collaborators_by_user ON collaborators (user_id);

CREATE TABLE images (
    digest TEXT NOT NULL PRIMARY KEY,
    -- model::Image as JSON.
    document TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE builds (
    id TEXT NOT NULL PRIMARY KEY,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id),
    commit_id TEXT NOT NULL,
    -- pending, succeeded or failed; leaves pending once.
    status TEXT NOT NULL,
    -- JSON array of id@version of the buildpacks that took part, once known.
    buildpacks TEXT NOT NULL,
    -- Bytes of the layers that the app adds to the run image, once known.
    size_bytes BIGINT,
    -- Opens the output without a token; part of output_stream_url.
    output_secret TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX builds_by_app ON builds (app_id, created_at);

-- Immutable but for status, failure and updated_at, which change once, when the release leaves pending.
CREATE TABLE releases (
    id TEXT NOT NULL PRIMARY KEY,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    version BIGINT NOT NULL,
    description TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id),
    -- Null until something was deployed.
    image TEXT REFERENCES images (digest),
    -- The build that this release deploys; null for config changes and rollbacks.
    build_id TEXT,
    -- Sealed JSON object.
    config TEXT NOT NULL,
    -- pending, succeeded or failed.
    status TEXT NOT NULL,
    -- Why it failed, for people.
    failure TEXT,
    -- Opens the output of the release phase without a token.
    output_secret TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (app_id, version)
);
CREATE INDEX releases_by_image ON releases (image);
CREATE INDEX releases_by_build ON releases (build_id);
CREATE INDEX releases_by_status ON releases (status);

CREATE TABLE formation (
    id TEXT NOT NULL PRIMARY KEY,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    process_type TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    size TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (app_id, process_type)
);

-- Custom domains. The default one follows from the app's name and has no row.
CREATE TABLE domains (
    id TEXT NOT NULL PRIMARY KEY,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    hostname TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX domains_by_app ON domains (app_id);

-- Numbers that only grow.
CREATE TABLE counters (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('app_uid', 99999);
