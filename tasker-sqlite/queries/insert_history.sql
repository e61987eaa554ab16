-- Adds rows to the history.
-- Each row: task, step, seq, at, author, attempt, ran_for, kind, result, detail
INSERT INTO history (task, step, seq, at, author, attempt, ran_for, kind, result, detail)
SELECT *
FROM (VALUES /* rows */ (?, ?, ?, ?, ?, ?, ?, ?, ?, ?))
WHERE column1 IS NOT NULL
