-- Requests that were sent with an Idempotency-Key, and what was answered: whoever sends one again gets the same answer.
CREATE TABLE kept_requests (
    -- SHA-256 of who and under which key.
    id TEXT NOT NULL PRIMARY KEY,
    -- SHA-256 of what was asked.
    digest TEXT NOT NULL,
    -- Both null while it is being answered. Answers hold tokens at times, so they are sealed.
    status BIGINT,
    answer TEXT,
    -- Whoever answers has until then, and so long an answer is kept.
    expires_at BIGINT NOT NULL
);

CREATE INDEX kept_requests_by_end ON kept_requests (expires_at);
