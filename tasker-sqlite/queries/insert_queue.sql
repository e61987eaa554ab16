-- Queues tasks.
-- Each row: route, priority, wake_at, task
INSERT INTO queue (route, priority, wake_at, task)
SELECT *
FROM (VALUES /* rows */ (?, ?, ?, ?))
WHERE column1 IS NOT NULL
