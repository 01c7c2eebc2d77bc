-- A domain may be a path of a host, which then has several apps: hostname is all of it, as in an address (www.example.com/api), path its path.
ALTER TABLE domains ADD COLUMN path TEXT;
-- Whether the app does not see the path.
ALTER TABLE domains ADD COLUMN strip BIGINT NOT NULL DEFAULT 0;
-- The domain that is the host itself, whose certificate is that of its paths.
ALTER TABLE domains ADD COLUMN host_id TEXT REFERENCES domains (id);
CREATE INDEX domains_by_host ON domains (host_id);
