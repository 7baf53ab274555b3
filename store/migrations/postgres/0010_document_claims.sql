-- Idempotency keys of documents, as claims are those of runs: the same request again finds the document.
CREATE TABLE document_claims (
    key         TEXT COLLATE "C" PRIMARY KEY,
    fingerprint TEXT COLLATE "C" NOT NULL,
    document_id TEXT COLLATE "C" NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    created_at  BIGINT NOT NULL
);
CREATE INDEX document_claims_by_age ON document_claims (created_at);
CREATE INDEX claims_of_document ON document_claims (document_id);
ALTER TABLE document_claims ALTER COLUMN key SET STATISTICS 0;  -- as for claims: statistics outlive the rows
