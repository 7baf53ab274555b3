-- Idempotency keys of documents, as claims are those of runs: the same request again finds the document.
CREATE TABLE document_claims (
    key         TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    document_id TEXT NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    created_at  INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX document_claims_by_age ON document_claims (created_at);
CREATE INDEX claims_of_document ON document_claims (document_id);
