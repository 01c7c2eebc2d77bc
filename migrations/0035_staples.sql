-- What the OCSP responder of a certificate's authority said of it, for all routers.
CREATE TABLE staples (
    endpoint_id TEXT NOT NULL PRIMARY KEY REFERENCES sni_endpoints (id) ON DELETE CASCADE,
    -- `updated_at` of the endpoint that was asked about: a row of another time is of a certificate that was there before.
    certificate_at BIGINT NOT NULL,
    status TEXT NOT NULL,
    -- Why it is so, or why there is no newer answer.
    reason TEXT,
    -- What visitors are shown, if anything: DER in base64, and until when.
    answer TEXT,
    expires_at BIGINT,
    -- Attempts in a row that failed.
    failures BIGINT NOT NULL,
    -- When the responder is asked next.
    due_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX staples_by_due ON staples (due_at);
