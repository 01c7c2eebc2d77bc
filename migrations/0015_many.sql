-- What any release was told by attachments is asked for all the time, and few releases were told anything.
CREATE INDEX releases_attached ON releases (app_id, version) WHERE attached <> '{}';

-- The audit log of one kind of thing.
CREATE INDEX events_by_resource ON events (resource, sequence);
