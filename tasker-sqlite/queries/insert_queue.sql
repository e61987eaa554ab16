-- Queues tasks.
-- Each row: route, wake_at, task
INSERT INTO queue (route, wake_at, task)
SELECT *
FROM (VALUES /* rows */ (?, ?, ?))
WHERE column1 IS NOT NULL
