-- What a run is for. One that is no answer leaves no message, and has no answer_id: what it wrote stands here, once it is
-- complete. Its message_id is the last message that it reads, and so the one that a summary reaches up to.
ALTER TABLE runs ADD COLUMN kind TEXT NOT NULL DEFAULT 'answer';
ALTER TABLE runs ADD COLUMN text TEXT;
-- The few of a session that are no answers. Who looks for them says "kind <> 'answer'", too: SQLite does not see that it
-- follows from "kind = 'summary'".
CREATE INDEX runs_beside ON runs (session_id, kind) WHERE kind <> 'answer';  -- and pos, which every index ends with
CREATE INDEX summaries ON runs (message_id) WHERE kind = 'summary' AND text IS NOT NULL;
