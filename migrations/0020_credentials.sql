-- What private registries and git hosts want to know: of an app, of a team's apps, or, where both are null, of all.
CREATE TABLE credentials (
    id TEXT NOT NULL PRIMARY KEY,
    -- Which of the three, in one word that can be unique: app:<id>, team:<id>, platform.
    scope TEXT NOT NULL,
    app_id TEXT REFERENCES apps (id) ON DELETE CASCADE,
    team_id TEXT REFERENCES teams (id) ON DELETE CASCADE,
    -- git.example.com, registry.example.com:5000
    host TEXT NOT NULL,
    -- password or ssh-key
    kind TEXT NOT NULL,
    username TEXT NOT NULL,
    -- Sealed: the password, or the private key.
    secret TEXT NOT NULL,
    -- Of the SSH key.
    public_key TEXT,
    -- By which an SSH server is known, one a line; null before it was met.
    host_keys TEXT,
    user_id TEXT NOT NULL REFERENCES users (id),
    created_at BIGINT NOT NULL,
    UNIQUE (scope, host, kind)
);
CREATE INDEX credentials_by_app ON credentials (app_id);
CREATE INDEX credentials_by_team ON credentials (team_id);
CREATE INDEX credentials_by_host ON credentials (host);
