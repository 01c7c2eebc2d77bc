-- First line of the commit's message; null for builds before this column, and for commits without a message.
ALTER TABLE builds ADD COLUMN subject TEXT;
