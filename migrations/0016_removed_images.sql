-- When the layers of the image were given up, since its app has newer ones; null while it can run. Its document stays: what a
-- release ran is told for ever.
ALTER TABLE images ADD COLUMN removed_at BIGINT;
