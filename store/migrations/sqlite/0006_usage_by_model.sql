-- What each run has used of each model: where another answered for the run's own, both may have their share.
CREATE TABLE usage_by_model (
    run_id           TEXT NOT NULL,
    session_id       TEXT NOT NULL,
    user_id          TEXT NOT NULL,
    model            TEXT NOT NULL,     -- the one that was asked, which need not be the run's
    day              INTEGER NOT NULL,  -- of the run's end, since 1970 in UTC
    input_tokens     INTEGER NOT NULL,
    output_tokens    INTEGER NOT NULL,
    cached_tokens    INTEGER NOT NULL,  -- of the input
    reasoning_tokens INTEGER NOT NULL,  -- of the output
    estimated        INTEGER NOT NULL,  -- 1 if the upstream did not count all of it
    cost             INTEGER,           -- nano-dollars; NULL where no price was known at the run's end
    PRIMARY KEY (run_id, model)
);
INSERT INTO usage_by_model SELECT * FROM usage;
DROP TABLE usage;
ALTER TABLE usage_by_model RENAME TO usage;
CREATE INDEX usage_of_session ON usage (session_id, day);
CREATE INDEX usage_of_user ON usage (user_id, day);
CREATE INDEX usage_of_day ON usage (day);

-- The trace that a run's request belongs to, for whichever process generates the run.
ALTER TABLE runs ADD COLUMN trace TEXT;
