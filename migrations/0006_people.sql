-- Teams own apps together.
CREATE TABLE teams (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- What each member may do with every app of the team: view, deploy, operate, manage or admin.
CREATE TABLE team_members (
    id TEXT NOT NULL PRIMARY KEY,
    team_id TEXT NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (team_id, user_id)
);
CREATE INDEX team_members_by_user ON team_members (user_id);

-- The team that owns the app. The collaborator 'owner' of such an app is only who brought it there, and has no more right
-- than the team gives.
ALTER TABLE apps ADD COLUMN team_id TEXT REFERENCES teams (id);
CREATE INDEX apps_by_team ON apps (team_id);

-- Null for rows that were never changed.
ALTER TABLE collaborators ADD COLUMN updated_at BIGINT;

-- Apps that are offered to somebody else, who has not taken them yet.
CREATE TABLE app_transfers (
    id TEXT NOT NULL PRIMARY KEY,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    owner_id TEXT NOT NULL REFERENCES users (id),
    recipient_id TEXT NOT NULL REFERENCES users (id),
    -- pending, accepted or declined; leaves pending once.
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX app_transfers_by_app ON app_transfers (app_id);

-- Public keys for git over SSH.
CREATE TABLE ssh_keys (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- SHA256:… as OpenSSH prints it. A key says who somebody is, so it is one user's only.
    fingerprint TEXT NOT NULL UNIQUE,
    -- Algorithm and base64, without the comment.
    public_key TEXT NOT NULL,
    comment TEXT NOT NULL,
    last_used_at BIGINT,
    created_at BIGINT NOT NULL
);
CREATE INDEX ssh_keys_by_user ON ssh_keys (user_id);

-- Heroku's scopes with blanks between them; null means everything.
ALTER TABLE tokens ADD COLUMN scope TEXT;
-- A deploy token: good for this app only, and for what this role may do.
ALTER TABLE tokens ADD COLUMN app_id TEXT REFERENCES apps (id) ON DELETE CASCADE;
ALTER TABLE tokens ADD COLUMN role TEXT;
ALTER TABLE tokens ADD COLUMN updated_at BIGINT;
-- Written at most once a minute.
ALTER TABLE tokens ADD COLUMN last_used_at BIGINT;

-- People who may come in, by the link that whoever invited them passes on.
CREATE TABLE invitations (
    id TEXT NOT NULL PRIMARY KEY,
    -- SHA-256 of the link's secret in hex.
    digest TEXT NOT NULL UNIQUE,
    email TEXT NOT NULL,
    -- The team that they will be a member of, and with which role.
    team_id TEXT REFERENCES teams (id) ON DELETE CASCADE,
    role TEXT,
    invited_by TEXT NOT NULL REFERENCES users (id),
    expires_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX invitations_by_team ON invitations (team_id);

-- May not come in until an operator says so.
ALTER TABLE users ADD COLUMN suspended_at BIGINT;
-- Gone: the row stays for what names it, with an address that is nobody's.
ALTER TABLE users ADD COLUMN deleted_at BIGINT;
ALTER TABLE users ADD COLUMN name TEXT;
-- Sealed. It counts once it is confirmed.
ALTER TABLE users ADD COLUMN totp_secret TEXT;
ALTER TABLE users ADD COLUMN totp_confirmed_at BIGINT;
-- The last time step whose code was taken: none is taken twice.
ALTER TABLE users ADD COLUMN totp_step BIGINT;

-- Codes for when the phone is lost; each is good once.
CREATE TABLE recovery_codes (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- SHA-256 in hex; a code has 80 random bits.
    digest TEXT NOT NULL,
    PRIMARY KEY (user_id, digest)
);

-- Null for sessions from before this column; they cannot be ended one by one.
ALTER TABLE sessions ADD COLUMN id TEXT;
-- Where it was begun, and by which browser.
ALTER TABLE sessions ADD COLUMN address TEXT;
ALTER TABLE sessions ADD COLUMN agent TEXT;
