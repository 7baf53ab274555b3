-- What SQLite's tables are in PostgreSQL, all of them: there was none before. Texts are compared byte by byte, as there.

-- Processes that own runs. An id is never used again, so that a dead owner's writes stay refused.
CREATE TABLE owners (
    id   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    beat TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()  -- by this database's clock; no other is asked
);

CREATE SEQUENCE touches;

CREATE TABLE sessions (
    id            TEXT COLLATE "C" PRIMARY KEY,
    user_id       TEXT COLLATE "C" NOT NULL,
    title         TEXT COLLATE "C",
    metadata      TEXT COLLATE "C" NOT NULL,
    leaf_id       TEXT COLLATE "C",
    message_count INTEGER NOT NULL DEFAULT 0,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL,
    touched       BIGINT NOT NULL,
    template      TEXT COLLATE "C",
    variables     TEXT COLLATE "C"
);
CREATE INDEX sessions_by_activity ON sessions (touched);
CREATE INDEX sessions_of_user ON sessions (user_id, touched);

-- pos is the order of the history; created_at is for show, a clock may jump.
CREATE TABLE messages (
    pos        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id         TEXT COLLATE "C" NOT NULL UNIQUE,
    session_id TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    parent_id  TEXT COLLATE "C",
    role       TEXT COLLATE "C" NOT NULL,
    content    TEXT COLLATE "C" NOT NULL,
    status     TEXT COLLATE "C" NOT NULL,
    run_id     TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    steps      TEXT COLLATE "C"
);
CREATE INDEX messages_of_session ON messages (session_id, pos);
CREATE INDEX messages_by_parent ON messages (coalesce(parent_id, session_id));

CREATE TABLE runs (
    pos              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id               TEXT COLLATE "C" NOT NULL UNIQUE,
    kind             TEXT COLLATE "C" NOT NULL DEFAULT 'answer',
    session_id       TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    message_id       TEXT COLLATE "C" NOT NULL,
    answer_id        TEXT COLLATE "C" NOT NULL,
    status           TEXT COLLATE "C" NOT NULL,
    model            TEXT COLLATE "C" NOT NULL,
    instructions     TEXT COLLATE "C",
    terms            TEXT COLLATE "C",
    trace            TEXT COLLATE "C",
    owner            BIGINT,
    epoch            INTEGER NOT NULL DEFAULT 0,
    journal_from     BIGINT NOT NULL,  -- no event of this run lies before this position
    last_seq         BIGINT NOT NULL DEFAULT 0,
    terminal         TEXT COLLATE "C", -- the last event, [name, body]; outlives the log
    text             TEXT COLLATE "C", -- what a run wrote that is no answer, once it is complete
    cancel_requested TEXT COLLATE "C",
    created_at       BIGINT NOT NULL,
    finished_at      BIGINT,
    folded           INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX runs_of_session ON runs (session_id, pos);
-- Whatever the code thinks it has locked: one answer at a time.
CREATE UNIQUE INDEX one_answer_a_session ON runs (session_id) WHERE status = 'running' AND kind = 'answer';
CREATE INDEX runs_active ON runs (status, session_id) WHERE status = 'queued' OR status = 'running';
CREATE INDEX runs_to_fold ON runs (finished_at) WHERE folded = 0 AND finished_at IS NOT NULL;
CREATE INDEX runs_beside ON runs (session_id, kind, pos) WHERE kind <> 'answer';
CREATE INDEX summaries ON runs (message_id) WHERE kind = 'summary' AND text IS NOT NULL;

-- The live tail: every run's events behind one another. Who appends holds a lock until the commit, so that nobody sees
-- a position before all smaller ones. The last row is never deleted.
CREATE TABLE journal (
    pos    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id TEXT COLLATE "C" NOT NULL,
    seq    BIGINT NOT NULL,
    name   TEXT COLLATE "C" NOT NULL,
    body   TEXT COLLATE "C" NOT NULL
);

-- The log of a run that has ended, or that waits, in pages of many events.
CREATE TABLE log_pages (
    run_id    TEXT COLLATE "C" NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    first_seq BIGINT NOT NULL,
    last_seq  BIGINT NOT NULL,
    events    TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (run_id, first_seq)
);

CREATE TABLE claims (
    key         TEXT COLLATE "C" PRIMARY KEY,
    fingerprint TEXT COLLATE "C" NOT NULL,
    run_id      TEXT COLLATE "C" NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    created_at  BIGINT NOT NULL
);
CREATE INDEX claims_by_age ON claims (created_at);
CREATE INDEX claims_of_run ON claims (run_id);

-- What tools have written down. It outlives the conversation.
CREATE TABLE records (
    pos        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id         TEXT COLLATE "C" NOT NULL UNIQUE,
    kind       TEXT COLLATE "C" NOT NULL,
    session_id TEXT COLLATE "C" NOT NULL,
    user_id    TEXT COLLATE "C" NOT NULL,
    run_id     TEXT COLLATE "C" NOT NULL,
    data       TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX records_by_kind ON records (kind, pos);
CREATE INDEX records_of_session ON records (session_id, pos);
CREATE INDEX records_of_user ON records (user_id, pos);

-- Calls that wait for somebody's yes: approved is NULL until it is decided.
CREATE TABLE approvals (
    run_id    TEXT COLLATE "C" NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    call_id   TEXT COLLATE "C" NOT NULL,
    approved  INTEGER,
    name      TEXT COLLATE "C" NOT NULL,
    arguments TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (run_id, call_id)
);

-- What each run has used of each model. It outlives its session: what was spent was spent.
CREATE TABLE usage (
    run_id           TEXT COLLATE "C" NOT NULL,
    session_id       TEXT COLLATE "C" NOT NULL,
    user_id          TEXT COLLATE "C" NOT NULL,
    model            TEXT COLLATE "C" NOT NULL,
    day              INTEGER NOT NULL,  -- of the run's end, since 1970 in UTC
    input_tokens     BIGINT NOT NULL,
    output_tokens    BIGINT NOT NULL,
    cached_tokens    BIGINT NOT NULL,   -- of the input
    reasoning_tokens BIGINT NOT NULL,   -- of the output
    estimated        INTEGER NOT NULL,  -- 1 if the upstream did not count all of it
    cost             BIGINT,            -- nano-dollars; NULL where no price was known at the run's end
    PRIMARY KEY (run_id, model)
);
CREATE INDEX usage_of_session ON usage (session_id, day);
CREATE INDEX usage_of_user ON usage (user_id, day);
CREATE INDEX usage_of_day ON usage (day);

-- What searches look at. Words as the service takes them apart, for PostgreSQL's own parsers know hosts and hyphens; a
-- word of its own says whose it is, so that a search in one's own history never walks through everybody's. A message
-- that is not in it yet is among the unsearched: the upkeep adds many at once, and no commit waits for that.
CREATE TABLE message_words (
    pos   BIGINT PRIMARY KEY REFERENCES messages (pos) ON DELETE CASCADE,
    words TSVECTOR NOT NULL
);
CREATE INDEX message_words_index ON message_words USING gin (words);
CREATE TABLE unsearched (
    pos BIGINT PRIMARY KEY REFERENCES messages (pos) ON DELETE CASCADE
);
CREATE FUNCTION message_is_new() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO unsearched VALUES (new.pos);
    RETURN NULL;
END $$;
CREATE TRIGGER message_is_new AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION message_is_new();
