-- What came in, as its SHA-256: NULL of documents from before.
ALTER TABLE documents ADD COLUMN digest TEXT;

-- The files of imports that go on. The bytes are there until the file is done, in base64: so an export takes them as it
-- takes all else. It is done when it has a document, or a code that says why not.
CREATE TABLE import_files (
    run_id      TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    name        TEXT NOT NULL,
    title       TEXT NOT NULL,
    media_type  TEXT NOT NULL,
    bytes       INTEGER NOT NULL,
    collection  TEXT NOT NULL,
    user_id     TEXT,
    content     TEXT,
    document_id TEXT,
    chunks      INTEGER NOT NULL DEFAULT 0,
    code        TEXT,
    message     TEXT,
    PRIMARY KEY (run_id, number)
);

-- What has become a document is erased with that.
CREATE TRIGGER import_file_is_refused AFTER UPDATE OF content ON import_files WHEN new.code IS NOT NULL BEGIN
    UPDATE erasures SET asked = asked + 1;
END;
CREATE TRIGGER import_file_is_dropped AFTER DELETE ON import_files WHEN old.content IS NOT NULL BEGIN
    UPDATE erasures SET asked = asked + 1;
END;
