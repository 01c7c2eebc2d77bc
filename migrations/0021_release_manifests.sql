-- What app.json said about instances and jobs when the release was made, as JSON: {} if it said nothing of the kind. Null in releases
-- that are older than this; what images.manifest says counts for them.
ALTER TABLE releases ADD COLUMN manifest TEXT;
