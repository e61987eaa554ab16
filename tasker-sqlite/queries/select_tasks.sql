-- Where some tasks stand.
-- Each row: id
SELECT
    id, template, priority, state, degraded, version, owner, route, wake_at, created_at, ended_at
FROM task
WHERE id IN (VALUES /* rows */ (?))
