-- The time, whether or not there are such tasks, and where they stand.
-- $1 tasks
SELECT
    statement_timestamp(),
    task.id, task.template, task.state, task.degraded, task.priority, task.version, task.owner,
    task.route, task.wake_at, task.created_at, task.ended_at
FROM (VALUES (1)) AS always
LEFT JOIN {schema}.task ON task.id = ANY ($1)
ORDER BY task.id
