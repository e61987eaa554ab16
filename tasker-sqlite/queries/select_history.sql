-- The whole history of some tasks, their inputs included.
-- Each row: task
SELECT task, step, seq, at, author, attempt, ran_for, kind, result, detail
FROM history
WHERE task IN (VALUES /* rows */ (?))
ORDER BY task, step, seq
