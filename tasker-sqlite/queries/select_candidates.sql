-- The first tasks on a route, in the order in which they are claimed, and where they stand.
-- ?1 route, ?2 how many
SELECT
    queue.wake_at, queue.task,
    task.id, task.template, task.state, task.degraded, task.version, task.owner, task.route,
    task.wake_at, task.created_at, task.ended_at
FROM queue
LEFT JOIN task ON task.id = queue.task
WHERE queue.route = ?1
ORDER BY queue.wake_at, queue.task
LIMIT ?2
