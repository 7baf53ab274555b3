-- Documents that answers are taken from. user_id is NULL where everybody may read one.
CREATE TABLE documents (
    pos        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id         TEXT COLLATE "C" NOT NULL UNIQUE,
    user_id    TEXT COLLATE "C",
    collection TEXT COLLATE "C" NOT NULL,
    title      TEXT COLLATE "C" NOT NULL,
    media_type TEXT COLLATE "C" NOT NULL,
    bytes      BIGINT NOT NULL,
    chunks     INTEGER NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX documents_of_user ON documents (user_id, collection, pos);

CREATE TABLE chunks (
    pos         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    document_id TEXT COLLATE "C" NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    place       TEXT COLLATE "C" NOT NULL,
    text        TEXT COLLATE "C" NOT NULL,
    UNIQUE (document_id, number)
);

-- Words as for messages, and one that says whose documents of which collection these are. A chunk that is not in it yet
-- is among the unindexed: many are added at once.
CREATE TABLE chunk_words (
    pos   BIGINT PRIMARY KEY REFERENCES chunks (pos) ON DELETE CASCADE,
    words TSVECTOR NOT NULL
);
CREATE INDEX chunk_words_index ON chunk_words USING gin (words);
CREATE TABLE unindexed_chunks (
    pos BIGINT PRIMARY KEY REFERENCES chunks (pos) ON DELETE CASCADE
);
CREATE FUNCTION chunk_is_new() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO unindexed_chunks VALUES (new.pos);
    RETURN NULL;
END $$;
CREATE TRIGGER chunk_is_new AFTER INSERT ON chunks FOR EACH ROW EXECUTE FUNCTION chunk_is_new();

-- As for messages: statistics would outlive what is deleted.
ALTER TABLE documents ALTER COLUMN title SET STATISTICS 0;
ALTER TABLE chunks ALTER COLUMN place SET STATISTICS 0, ALTER COLUMN text SET STATISTICS 0;
ALTER TABLE chunk_words ALTER COLUMN words SET STATISTICS 0;
