-- Where some tasks stand, and will until the end of the transaction.
-- $1 tasks
SELECT
    statement_timestamp(),
    task.id, task.template, task.state, task.degraded, task.priority, task.version, task.owner,
    task.route, task.wake_at, task.created_at, task.ended_at
FROM {schema}.task
WHERE task.id = ANY ($1)
ORDER BY task.id
FOR NO KEY UPDATE
