-- An invitation may also be to one app: whoever accepts it is a collaborator of it.
ALTER TABLE invitations ADD COLUMN app_id TEXT REFERENCES apps (id) ON DELETE CASCADE;
CREATE INDEX invitations_by_app ON invitations (app_id);
