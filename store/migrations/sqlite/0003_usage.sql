-- What each run has used, a row a run. It has no foreign key and outlives its session: what was spent was spent. So
-- there is no text in it, only who, how much and when.
CREATE TABLE usage (
    run_id           TEXT PRIMARY KEY,
    session_id       TEXT NOT NULL,
    user_id          TEXT NOT NULL,
    model            TEXT NOT NULL,
    day              INTEGER NOT NULL,  -- of the run's end, since 1970 in UTC
    input_tokens     INTEGER NOT NULL,
    output_tokens    INTEGER NOT NULL,
    cached_tokens    INTEGER NOT NULL,  -- of the input
    reasoning_tokens INTEGER NOT NULL,  -- of the output
    estimated        INTEGER NOT NULL,  -- 1 if the upstream did not count all of it
    cost             INTEGER            -- nano-dollars; NULL where no price was known at the run's end
);
CREATE INDEX usage_of_session ON usage (session_id, day);
CREATE INDEX usage_of_user ON usage (user_id, day);
CREATE INDEX usage_of_day ON usage (day);

-- Runs that ended before this table was there have it in their last event, if the upstream reported it.
INSERT INTO usage
SELECT id, session_id, user_id, model, finished_at / 86400000, json_extract(told, '$.input_tokens'),
       json_extract(told, '$.output_tokens'), 0, 0, json_extract(told, '$.source') = 'estimated', NULL
FROM (SELECT runs.id, runs.session_id, sessions.user_id, runs.model, runs.finished_at,
             json_extract(json_extract(runs.terminal, '$[1]'), '$.usage') AS told
      FROM runs JOIN sessions ON sessions.id = runs.session_id
      WHERE runs.terminal IS NOT NULL)
WHERE told IS NOT NULL;
