-- People who are signed in to the console.
CREATE TABLE sessions (
    -- SHA-256 of the cookie's value in hex; the value itself is kept nowhere.
    digest TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    expires_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX sessions_by_end ON sessions (expires_at);
