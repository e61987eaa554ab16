-- The tasks that a worker owns.
-- ?1 worker
SELECT
    id, template, priority, state, degraded, version, owner, route, wake_at, created_at, ended_at
FROM task
WHERE owner = ?1
ORDER BY id
