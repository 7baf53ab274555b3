-- A number that an owner moves when it has lost a connection and does not know what became of a commit: one that is still
-- on its way names the old number, and is refused. It is part of a key so that who moves it waits for who writes.
ALTER TABLE owners ADD COLUMN fence BIGINT NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX owners_fenced ON owners (id, fence);
