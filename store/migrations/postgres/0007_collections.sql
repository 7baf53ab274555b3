-- The collection of documents that a session's answers are taken from.
ALTER TABLE sessions ADD COLUMN collection TEXT COLLATE "C";
