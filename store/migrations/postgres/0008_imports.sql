-- What came in, as its SHA-256: NULL of documents from before.
ALTER TABLE documents ADD COLUMN digest TEXT COLLATE "C";

-- The files of imports that go on. The bytes are there until the file is done, in base64: so an export takes them as it
-- takes all else. It is done when it has a document, or a code that says why not.
CREATE TABLE import_files (
    run_id      TEXT COLLATE "C" NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    name        TEXT COLLATE "C" NOT NULL,
    title       TEXT COLLATE "C" NOT NULL,
    media_type  TEXT COLLATE "C" NOT NULL,
    bytes       BIGINT NOT NULL,
    collection  TEXT COLLATE "C" NOT NULL,
    user_id     TEXT COLLATE "C",
    content     TEXT COLLATE "C",
    document_id TEXT COLLATE "C",
    chunks      INTEGER NOT NULL DEFAULT 0,
    code        TEXT COLLATE "C",
    message     TEXT COLLATE "C",
    PRIMARY KEY (run_id, number)
);

-- Statistics would outlive what is dropped.
ALTER TABLE documents ALTER COLUMN digest SET STATISTICS 0;
ALTER TABLE import_files ALTER COLUMN name SET STATISTICS 0, ALTER COLUMN title SET STATISTICS 0,
    ALTER COLUMN content SET STATISTICS 0;
