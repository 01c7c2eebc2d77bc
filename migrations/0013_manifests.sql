-- What app.json says about instances and jobs, as JSON: {healthchecks, cron}. Null if it says nothing of the kind.
ALTER TABLE images ADD COLUMN manifest TEXT;
-- 1: the script that runs once after the first release has not run yet.
ALTER TABLE apps ADD COLUMN postdeploy_due BIGINT;
