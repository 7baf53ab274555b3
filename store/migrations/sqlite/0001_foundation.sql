-- Processes that own runs. AUTOINCREMENT: an id is never used again, so that a dead owner's writes stay refused.
CREATE TABLE owners (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    lock  TEXT NOT NULL,              -- the file that the process holds a kernel lock on
    beats INTEGER NOT NULL DEFAULT 0  -- grows while the process lives; nobody compares clocks
);

CREATE TABLE sessions (
    id            TEXT PRIMARY KEY,
    user_id       TEXT NOT NULL,
    title         TEXT,
    metadata      TEXT NOT NULL,
    leaf_id       TEXT,
    message_count INTEGER NOT NULL DEFAULT 0,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    touched       INTEGER NOT NULL
);
CREATE INDEX sessions_by_activity ON sessions (touched);
CREATE INDEX sessions_of_user ON sessions (user_id, touched);

-- pos is the order of the history; created_at is for show, a clock may jump.
CREATE TABLE messages (
    pos        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    parent_id  TEXT,
    role       TEXT NOT NULL,
    content    TEXT NOT NULL,
    status     TEXT NOT NULL,
    run_id     TEXT,
    created_at INTEGER NOT NULL
);
CREATE INDEX messages_of_session ON messages (session_id);  -- and pos, which every index ends with
-- A message's children, or a session's roots: one id instead of two.
CREATE INDEX messages_by_parent ON messages (coalesce(parent_id, session_id));

CREATE TABLE runs (
    pos              INTEGER PRIMARY KEY,
    id               TEXT NOT NULL UNIQUE,
    session_id       TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    message_id       TEXT NOT NULL,
    answer_id        TEXT NOT NULL,
    status           TEXT NOT NULL,
    model            TEXT NOT NULL,
    instructions     TEXT,
    owner            INTEGER,
    epoch            INTEGER NOT NULL DEFAULT 0,
    journal_from     INTEGER NOT NULL,  -- no event of this run lies before this position
    last_seq         INTEGER NOT NULL DEFAULT 0,
    terminal         TEXT,              -- the last event, [name, body]; outlives the log
    cancel_requested TEXT,
    created_at       INTEGER NOT NULL,
    finished_at      INTEGER,
    folded           INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX runs_of_session ON runs (session_id);
-- The few that are going, found without looking at the many that are done. Said with OR, and not with IN, because that
-- is what SQLite sees to follow from "status = 'running'" alone; who wants both says it with OR, too.
CREATE INDEX runs_active ON runs (status, session_id) WHERE status = 'queued' OR status = 'running';
CREATE INDEX runs_to_fold ON runs (finished_at) WHERE folded = 0 AND finished_at IS NOT NULL;

-- The live tail: every run's events behind one another, so that a commit dirties one page and not one a run.
-- Without an index on the run: a live run's events are in its owner's memory. The last row is never deleted, so
-- that positions only grow.
CREATE TABLE journal (
    pos    INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL,
    seq    INTEGER NOT NULL,
    name   TEXT NOT NULL,
    body   TEXT NOT NULL
);

-- The log of a run that has ended, in pages of many events. With a rowid, because without one all but the first 489
-- bytes of such a row would lie in database pages of its own.
CREATE TABLE log_pages (
    run_id    TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    first_seq INTEGER NOT NULL,
    last_seq  INTEGER NOT NULL,
    events    TEXT NOT NULL,
    PRIMARY KEY (run_id, first_seq)
);

CREATE TABLE claims (
    key         TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    run_id      TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    created_at  INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX claims_by_age ON claims (created_at);
CREATE INDEX claims_of_run ON claims (run_id);
