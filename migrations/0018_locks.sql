-- Apps of which nobody makes a release for now.
CREATE TABLE locks (
    app_id TEXT NOT NULL PRIMARY KEY REFERENCES apps (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id),
    -- Why, in the words of who locked it.
    message TEXT,
    created_at BIGINT NOT NULL
);

-- Times in which nobody makes a release: of an app, of a team's apps, or, where both are null, of all.
CREATE TABLE freeze_windows (
    id TEXT NOT NULL PRIMARY KEY,
    app_id TEXT REFERENCES apps (id) ON DELETE CASCADE,
    team_id TEXT REFERENCES teams (id) ON DELETE CASCADE,
    -- As model::Freeze writes it: fri 16:00 - mon 08:00 Europe/Berlin.
    period TEXT NOT NULL,
    reason TEXT,
    user_id TEXT NOT NULL REFERENCES users (id),
    created_at BIGINT NOT NULL
);
CREATE INDEX freeze_windows_by_app ON freeze_windows (app_id);
CREATE INDEX freeze_windows_by_team ON freeze_windows (team_id);
