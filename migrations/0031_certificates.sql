-- The platform's accounts at certificate authorities (ACME).
CREATE TABLE acme_accounts (
    id TEXT NOT NULL PRIMARY KEY,
    -- URL of the authority's directory.
    directory TEXT NOT NULL UNIQUE,
    -- Sealed: the account's URL and its key.
    credentials TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- How far the platform is with a certificate for each domain that shall get one.
CREATE TABLE domain_orders (
    domain_id TEXT NOT NULL PRIMARY KEY REFERENCES domains (id) ON DELETE CASCADE,
    status TEXT NOT NULL,
    -- Why there is none yet, or why it was not renewed.
    reason TEXT,
    -- Attempts in a row that failed.
    failures BIGINT NOT NULL,
    -- When it is looked at next.
    due_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX domain_orders_by_due ON domain_orders (due_at);

-- 1: the platform got it.
ALTER TABLE sni_endpoints ADD COLUMN acm BIGINT NOT NULL DEFAULT 0;
