-- Leaves news for workers.
-- Each row: worker, task, step, seq
INSERT INTO news (worker, task, step, seq)
SELECT *
FROM (VALUES /* rows */ (?, ?, ?, ?))
WHERE column1 IS NOT NULL
