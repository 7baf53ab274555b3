-- The model whose embeddings are made and compared now. There is a row once somebody has wanted any.
CREATE TABLE embedding_model (name TEXT NOT NULL);

-- What a model says that a chunk is about: float32, little-endian, of length 1. One at a time for each chunk.
CREATE TABLE embeddings (
    pos        INTEGER PRIMARY KEY REFERENCES chunks (pos) ON DELETE CASCADE,
    model      TEXT NOT NULL,
    dimensions INTEGER NOT NULL,
    vector     BLOB NOT NULL
);
-- Of those of today's model the sign of each number, a bit each, the first in the highest: what a search goes through.
CREATE TABLE embedding_signs (
    pos   INTEGER PRIMARY KEY REFERENCES embeddings (pos) ON DELETE CASCADE,
    signs BLOB NOT NULL
);

-- Chunks that today's model has not seen. due is in milliseconds since 1970: before then somebody is at it, or it is to
-- be tried again then; NULL is for what the model has refused.
CREATE TABLE unembedded_chunks (
    pos INTEGER PRIMARY KEY REFERENCES chunks (pos) ON DELETE CASCADE,
    due INTEGER DEFAULT 0
);
CREATE INDEX unembedded_chunks_due ON unembedded_chunks (due);  -- and pos, which every index ends with
INSERT INTO unembedded_chunks (pos) SELECT pos FROM chunks;
CREATE TRIGGER chunk_is_unembedded AFTER INSERT ON chunks BEGIN
    INSERT INTO unembedded_chunks (pos) VALUES (new.pos);
END;

-- How many of its chunks today's model has seen.
ALTER TABLE documents ADD COLUMN embedded INTEGER NOT NULL DEFAULT 0;
