-- Which of some history rows are there already.
-- Each row: task, step, seq
SELECT task, step, seq
FROM history
WHERE (task, step, seq) IN (VALUES /* rows */ (?, ?, ?))
