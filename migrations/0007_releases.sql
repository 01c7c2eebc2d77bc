-- What a release holds beside image and config. All of it is null in releases that are older than this file.
-- Why it was made, in the words of who made it.
ALTER TABLE releases ADD COLUMN reason TEXT;
-- The build whose image it runs, also when another release deployed it.
ALTER TABLE releases ADD COLUMN slug_id TEXT;
-- JSON object: process type → {quantity, size}, as it was when the release was made.
ALTER TABLE releases ADD COLUMN formation TEXT;
-- 1: when the release becomes current, the app's formation becomes that of the release.
ALTER TABLE releases ADD COLUMN restores BIGINT;
-- JSON object: name → {addon, name, plan}.
ALTER TABLE releases ADD COLUMN attachments TEXT;
-- JSON object: config var → build or run. What is not here is in both.
ALTER TABLE releases ADD COLUMN scopes TEXT;
-- JSON object: config var → added, changed or removed, against the release before.
ALTER TABLE releases ADD COLUMN config_changes TEXT;
-- 1: its image has a release phase.
ALTER TABLE releases ADD COLUMN phase BIGINT;

-- Number of the app's newest release when a process type was last scaled.
ALTER TABLE formation ADD COLUMN scaled_in BIGINT;
