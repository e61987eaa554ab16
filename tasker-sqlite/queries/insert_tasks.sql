-- Stores new tasks.
-- Each row: id, template, state, version, owner, wake_at, created_at
INSERT INTO task (id, template, state, degraded, version, owner, wake_at, created_at)
SELECT column1, column2, column3, 0, column4, column5, column6, column7
FROM (VALUES /* rows */ (?, ?, ?, ?, ?, ?, ?))
WHERE column1 IS NOT NULL
