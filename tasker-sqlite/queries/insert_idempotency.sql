-- Remembers the keys of new tasks.
-- Each row: namespace, name, key, task
INSERT INTO idempotency (namespace, name, key, task)
SELECT *
FROM (VALUES /* rows */ (?, ?, ?, ?))
WHERE column1 IS NOT NULL
