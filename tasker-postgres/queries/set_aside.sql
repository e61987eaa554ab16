-- Queues a task again, for later, that a worker has claimed and cannot read. The lock keeps the worker
-- from being taken over meanwhile, which would queue the task once more.
-- $1 task, $2 worker, $3 route, $4 for how long, in microseconds
WITH fence AS MATERIALIZED (
    SELECT worker.id
    FROM {schema}.worker
    WHERE worker.id = $2 AND worker.gone_at IS NULL
    FOR KEY SHARE
),
moved AS (
    UPDATE {schema}.task
    SET owner = NULL,
        version = task.version + 1,
        wake_at = now() + $4::bigint * interval '1 microsecond'
    WHERE task.id = $1 AND task.owner = (SELECT fence.id FROM fence)
    RETURNING task.id, task.priority, task.wake_at
)
INSERT INTO {schema}.queue (route, priority, wake_at, task)
SELECT $3, moved.priority, moved.wake_at, moved.id
FROM moved
