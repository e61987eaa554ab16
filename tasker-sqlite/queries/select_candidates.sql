-- The first tasks of a priority on a route, in the order in which they are claimed, and where they
-- stand.
-- ?1 route, ?2 priority, ?3 how many
SELECT
    queue.wake_at, queue.task,
    task.id, task.template, task.priority, task.state, task.degraded, task.version, task.owner,
    task.route, task.wake_at, task.created_at, task.ended_at
FROM queue
LEFT JOIN task ON task.id = queue.task
WHERE queue.route = ?1
  AND queue.priority = ?2
ORDER BY queue.wake_at, queue.task
LIMIT ?3
