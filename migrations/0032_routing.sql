-- What is set of how routers treat the requests to an app: names and texts, JSON (model::RoutePolicy). The rest is as its app.json says, or as
-- it is by default.
CREATE TABLE routing_policies (
    app_id TEXT NOT NULL PRIMARY KEY REFERENCES apps (id) ON DELETE CASCADE,
    policy TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);
