-- What a call that waits for a yes would do, for those who decide and have not followed its run.
ALTER TABLE approvals ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE approvals ADD COLUMN arguments TEXT NOT NULL DEFAULT '';

-- Of the calls that wait already it stands in the journal. CASE, because only such a body is JSON.
UPDATE approvals SET name = json_extract(body, '$.name'), arguments = json_extract(body, '$.arguments')
FROM (SELECT run_id AS caller, body, CASE name WHEN 'tool.called' THEN json_extract(body, '$.call_id') END AS called
      FROM journal)
WHERE approved IS NULL AND run_id = caller AND call_id = called;
