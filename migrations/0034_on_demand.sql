-- 1: nobody added it; it came with a visitor, and the app said that it is its own. Whoever renews its certificate asks again.
ALTER TABLE domains ADD COLUMN on_demand BIGINT NOT NULL DEFAULT 0;
