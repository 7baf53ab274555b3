-- Documents that answers are taken from. user_id is NULL where everybody may read one.
CREATE TABLE documents (
    pos        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    user_id    TEXT,
    collection TEXT NOT NULL,
    title      TEXT NOT NULL,
    media_type TEXT NOT NULL,
    bytes      INTEGER NOT NULL,
    chunks     INTEGER NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE INDEX documents_of_user ON documents (user_id, collection);  -- and pos, which every index ends with

CREATE TABLE chunks (
    pos         INTEGER PRIMARY KEY,
    document_id TEXT NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    place       TEXT NOT NULL,
    text        TEXT NOT NULL,
    UNIQUE (document_id, number)
);

-- Chunks that the index does not have yet: they are added a few at a time, so that no commit waits for a whole document.
CREATE TABLE unindexed_chunks (pos INTEGER PRIMARY KEY);
CREATE TRIGGER chunk_is_new AFTER INSERT ON chunks BEGIN
    INSERT INTO unindexed_chunks VALUES (new.pos);
END;

-- What is in the index. The scope is one word that says whose documents of which collection these are, whatever the
-- names look like: so a search never walks through those of others. x is no hexadecimal digit, and u no more.
CREATE VIEW searched_chunks AS
    SELECT chunks.pos, chunks.text, documents.title || ' ' || chunks.place AS heading,
           hex(collection) || 'x' || CASE WHEN user_id IS NULL THEN '' ELSE 'u' || hex(user_id) END AS scope
    FROM chunks JOIN documents ON documents.id = chunks.document_id;

-- As for messages: without a copy of the text, with words as unicode61 takes them apart.
CREATE VIRTUAL TABLE chunks_index USING fts5 (
    text, heading, scope,
    content = 'searched_chunks', content_rowid = 'pos', detail = full, tokenize = 'unicode61 remove_diacritics 2'
);

CREATE TRIGGER chunk_unindexed AFTER DELETE ON chunks BEGIN
    INSERT INTO chunks_index (chunks_index, rowid, text, heading, scope)
    SELECT 'delete', old.pos, old.text, title || ' ' || old.place,
           hex(collection) || 'x' || CASE WHEN user_id IS NULL THEN '' ELSE 'u' || hex(user_id) END
    FROM documents WHERE id = old.document_id AND old.pos NOT IN (SELECT pos FROM unindexed_chunks);
    DELETE FROM unindexed_chunks WHERE pos = old.pos;
END;
-- The foreign key would take the chunks along when their document is gone already, and with it their scope.
CREATE TRIGGER document_leaves_no_chunk BEFORE DELETE ON documents BEGIN
    DELETE FROM chunks WHERE document_id = old.id;
    UPDATE erasures SET asked = asked + 1;
END;
