-- The conversations that nothing has happened in for long.
CREATE INDEX sessions_by_age ON sessions (updated_at);

-- Statistics are samples of what is in a column, and outlive the rows. No query is planned by any of these.
ALTER TABLE sessions ALTER COLUMN title SET STATISTICS 0, ALTER COLUMN metadata SET STATISTICS 0,
    ALTER COLUMN variables SET STATISTICS 0;
ALTER TABLE messages ALTER COLUMN content SET STATISTICS 0, ALTER COLUMN steps SET STATISTICS 0,
    ALTER COLUMN sources SET STATISTICS 0;
ALTER TABLE runs ALTER COLUMN instructions SET STATISTICS 0, ALTER COLUMN terms SET STATISTICS 0,
    ALTER COLUMN terminal SET STATISTICS 0, ALTER COLUMN text SET STATISTICS 0;
ALTER TABLE journal ALTER COLUMN body SET STATISTICS 0;
ALTER TABLE log_pages ALTER COLUMN events SET STATISTICS 0;
ALTER TABLE claims ALTER COLUMN key SET STATISTICS 0;
ALTER TABLE records ALTER COLUMN data SET STATISTICS 0;
ALTER TABLE approvals ALTER COLUMN arguments SET STATISTICS 0;
ALTER TABLE message_words ALTER COLUMN words SET STATISTICS 0;
