-- Where an app's log is sent.
CREATE TABLE log_drains (
    id TEXT NOT NULL PRIMARY KEY,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    -- Sealed: it may hold a password.
    url TEXT NOT NULL,
    -- Tells the receiver whose log it is.
    token TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX log_drains_by_app ON log_drains (app_id);

-- Archives that clients send, to build from them. A row is there as long as its file may be.
CREATE TABLE sources (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- SHA-256, in hex, of what opens it for writing and for reading; the secrets themselves are kept nowhere.
    put_digest TEXT NOT NULL UNIQUE,
    get_digest TEXT NOT NULL UNIQUE,
    expires_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX sources_by_end ON sources (expires_at);

-- Where the files of a build came from, if not from a push; without what may be secret in it.
ALTER TABLE builds ADD COLUMN source_url TEXT;
-- What the client said of them: SHA256:….
ALTER TABLE builds ADD COLUMN source_checksum TEXT;

-- Certificates of apps, with their keys.
CREATE TABLE sni_endpoints (
    id TEXT NOT NULL PRIMARY KEY,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name TEXT NOT NULL UNIQUE,
    -- PEM, the leaf first.
    certificate_chain TEXT NOT NULL,
    -- Sealed PEM.
    private_key TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX sni_endpoints_by_app ON sni_endpoints (app_id);
-- The certificate that a domain shows; null means none of the user's.
ALTER TABLE domains ADD COLUMN sni_endpoint_id TEXT;
-- Whether the platform shall get certificates for the app's domains.
ALTER TABLE apps ADD COLUMN acm BIGINT NOT NULL DEFAULT 0;

-- Switches of an app, each as of a release: what a release has been told never changes.
CREATE TABLE app_features (
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    -- The first release that it holds for.
    version BIGINT NOT NULL,
    enabled BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (app_id, name, version)
);
