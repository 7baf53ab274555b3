-- What an answer is from, as JSON.
ALTER TABLE messages ADD COLUMN sources TEXT COLLATE "C";
