-- The offers of some tasks.
-- Each row: task
SELECT task, step, seq, holder
FROM offer
WHERE task IN (VALUES /* rows */ (?))
