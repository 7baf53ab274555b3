-- What a call that waits for a yes would do, for those who decide and have not followed its run.
ALTER TABLE approvals ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE approvals ADD COLUMN arguments TEXT NOT NULL DEFAULT '';

-- Of the calls that wait already it stands in the journal, or in the pages of runs that were put aside. CASE, because
-- only such a body is JSON.
UPDATE approvals SET name = json_extract(body, '$.name'), arguments = json_extract(body, '$.arguments')
FROM (SELECT run_id AS caller, body, CASE name WHEN 'tool.called' THEN json_extract(body, '$.call_id') END AS called
      FROM (SELECT run_id, name, body FROM journal
            UNION ALL
            SELECT run_id, CASE type WHEN 'array' THEN json_extract(value, '$[0]') END,
                   CASE type WHEN 'array' THEN json_extract(value, '$[1]') END
            FROM log_pages JOIN json_each(events)
            WHERE run_id IN (SELECT run_id FROM approvals WHERE approved IS NULL)))
WHERE approved IS NULL AND run_id = caller AND call_id = called;
