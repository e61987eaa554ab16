-- Stores new tasks.
-- Each row: id, template, priority, state, version, owner, wake_at, created_at
INSERT INTO task (id, template, priority, state, degraded, version, owner, wake_at, created_at)
SELECT column1, column2, column3, column4, 0, column5, column6, column7, column8
FROM (VALUES /* rows */ (?, ?, ?, ?, ?, ?, ?, ?))
WHERE column1 IS NOT NULL
