-- The model whose embeddings are made and compared now. There is a row once somebody has wanted any.
CREATE TABLE embedding_model (name TEXT COLLATE "C" NOT NULL);

-- What a model says that a chunk is about: float32, little-endian, of length 1. One at a time for each chunk.
CREATE TABLE embeddings (
    pos        BIGINT PRIMARY KEY REFERENCES chunks (pos) ON DELETE CASCADE,
    model      TEXT COLLATE "C" NOT NULL,
    dimensions INTEGER NOT NULL,
    vector     BYTEA NOT NULL
);
ALTER TABLE embeddings ALTER COLUMN vector SET STORAGE EXTERNAL;  -- nothing that a compressor could do with
-- Of those of today's model the sign of each number, a bit each: what a search goes through.
CREATE TABLE embedding_signs (
    pos   BIGINT PRIMARY KEY REFERENCES embeddings (pos) ON DELETE CASCADE,
    signs BIT VARYING NOT NULL
);

-- Chunks that today's model has not seen. due is in milliseconds since 1970: before then somebody is at it, or it is to
-- be tried again then; NULL is for what the model has refused.
CREATE TABLE unembedded_chunks (
    pos BIGINT PRIMARY KEY REFERENCES chunks (pos) ON DELETE CASCADE,
    due BIGINT DEFAULT 0
);
CREATE INDEX unembedded_chunks_due ON unembedded_chunks (due, pos);
INSERT INTO unembedded_chunks (pos) SELECT pos FROM chunks;
CREATE FUNCTION chunk_is_unembedded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO unembedded_chunks (pos) VALUES (new.pos);
    RETURN NULL;
END $$;
CREATE TRIGGER chunk_is_unembedded AFTER INSERT ON chunks FOR EACH ROW EXECUTE FUNCTION chunk_is_unembedded();

-- How many of its chunks today's model has seen.
ALTER TABLE documents ADD COLUMN embedded INTEGER NOT NULL DEFAULT 0;

-- As for messages: statistics would outlive what is deleted.
ALTER TABLE embeddings ALTER COLUMN vector SET STATISTICS 0;
ALTER TABLE embedding_signs ALTER COLUMN signs SET STATISTICS 0;
