-- How often something was to be deleted for good, and how much of that the upkeep has seen to: a deleted word stays in the
-- index for searches, and a page in the -wal file, until something is done about it. Where there are conversations already,
-- there may be something of deleted ones.
CREATE TABLE erasures (
    asked INTEGER NOT NULL,
    done  INTEGER NOT NULL
);
INSERT INTO erasures SELECT count(*) > 0, 0 FROM (SELECT 1 FROM sessions LIMIT 1);

DROP TRIGGER session_leaves_no_message;
-- The foreign key would take the messages along when their session is gone already, and with it their owner.
CREATE TRIGGER session_leaves_no_message BEFORE DELETE ON sessions BEGIN
    DELETE FROM messages WHERE session_id = old.id;
    UPDATE erasures SET asked = asked + 1;
END;
CREATE TRIGGER record_is_erased AFTER DELETE ON records BEGIN
    UPDATE erasures SET asked = asked + 1;
END;
CREATE TRIGGER usage_is_nobodys AFTER UPDATE OF user_id ON usage BEGIN
    UPDATE erasures SET asked = asked + 1;
END;

-- The conversations that nothing has happened in for long.
CREATE INDEX sessions_by_age ON sessions (updated_at);
