-- Queues a task again, for later, that a worker has claimed and cannot read.
-- $1 task, $2 worker, $3 route, $4 for how long, in microseconds
WITH moved AS (
    UPDATE {schema}.task
    SET owner = NULL,
        version = task.version + 1,
        wake_at = now() + $4::bigint * interval '1 microsecond'
    WHERE task.id = $1 AND task.owner = $2
    RETURNING task.id, task.priority, task.wake_at
)
INSERT INTO {schema}.queue (route, priority, wake_at, task)
SELECT $3, moved.priority, moved.wake_at, moved.id
FROM moved
