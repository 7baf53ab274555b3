-- The steps of an answer in which tools were called, as JSON; its text stands in content.
ALTER TABLE messages ADD COLUMN steps TEXT;

-- What tools have written down. It outlives the conversation: a report does not go away with the chat it was made in.
CREATE TABLE records (
    pos        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    kind       TEXT NOT NULL,
    session_id TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    run_id     TEXT NOT NULL,
    data       TEXT NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE INDEX records_by_kind ON records (kind);  -- and pos, which every index ends with
CREATE INDEX records_of_session ON records (session_id);
CREATE INDEX records_of_user ON records (user_id);

-- Calls that wait for somebody's yes: approved is NULL until it is decided.
CREATE TABLE approvals (
    run_id   TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    call_id  TEXT NOT NULL,
    approved INTEGER,
    PRIMARY KEY (run_id, call_id)
) WITHOUT ROWID;
