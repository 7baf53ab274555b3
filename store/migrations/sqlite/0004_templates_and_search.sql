-- The prompt template that a session's chats use, and the JSON object of its variables: both or neither.
ALTER TABLE sessions ADD COLUMN template TEXT;
ALTER TABLE sessions ADD COLUMN variables TEXT;

-- Messages up to this position are in the index, later ones are not yet: a trigger would double what each message costs
-- and hold up everybody's commits, while the upkeep adds many at once. Never beyond the last message, because the
-- position of one that is deleted can be given out again.
CREATE TABLE messages_indexed (up_to INTEGER NOT NULL);
INSERT INTO messages_indexed SELECT coalesce(max(pos), 0) FROM messages;

-- What is in the index, and what its results are read from. The owner is one word, whatever the id looks like: so a
-- search in one's own history never walks through everybody's.
CREATE VIEW searched_messages AS
    SELECT messages.pos, messages.content, 'u' || hex(sessions.user_id) AS owner
    FROM messages JOIN sessions ON sessions.id = messages.session_id
    WHERE messages.pos <= (SELECT up_to FROM messages_indexed);

-- Without a copy of the text. unicode61 and not trigram: measured on prose it adds 0.6 bytes a byte of text and trigram
-- 3.3. The price: in scripts without spaces, such as Chinese, a word is what lies between two marks of punctuation, and
-- is found by its beginning only. detail=full, because ranking would read and take apart every candidate without it.
-- content comes first: entries of any other column are two bytes longer each.
CREATE VIRTUAL TABLE messages_index USING fts5 (
    content, owner,
    content = 'searched_messages', content_rowid = 'pos', detail = full, tokenize = 'unicode61 remove_diacritics 2'
);
INSERT INTO messages_index (messages_index) VALUES ('rebuild');

CREATE TRIGGER message_unindexed AFTER DELETE ON messages BEGIN
    INSERT INTO messages_index (messages_index, rowid, content, owner)
    SELECT 'delete', old.pos, old.content, 'u' || hex(user_id) FROM sessions JOIN messages_indexed
    WHERE id = old.session_id AND old.pos <= up_to;
    UPDATE messages_indexed SET up_to = (SELECT coalesce(max(pos), 0) FROM messages)
    WHERE up_to > (SELECT coalesce(max(pos), 0) FROM messages);
END;
CREATE TRIGGER message_reindexed AFTER UPDATE OF content ON messages
WHEN old.pos <= (SELECT up_to FROM messages_indexed) BEGIN
    INSERT INTO messages_index (messages_index, rowid, content, owner)
    SELECT 'delete', old.pos, old.content, 'u' || hex(user_id) FROM sessions WHERE id = old.session_id;
    INSERT INTO messages_index (rowid, content, owner)
    SELECT new.pos, new.content, 'u' || hex(user_id) FROM sessions WHERE id = new.session_id;
END;
-- The foreign key would take the messages along when their session is gone already, and with it their owner.
CREATE TRIGGER session_leaves_no_message BEFORE DELETE ON sessions BEGIN
    DELETE FROM messages WHERE session_id = old.id;
END;
