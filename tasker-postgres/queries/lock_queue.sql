-- Keeps queued tasks from being claimed.
-- Parallel arrays: $1 route, $2 priority, $3 wake_at, $4 task
SELECT locked.task, locked.wake_at
FROM (
    SELECT *
    FROM unnest($1::text[], $2::smallint[], $3::timestamptz[], $4::uuid[])
        AS asked (route, priority, wake_at, task)
    ORDER BY task
) AS asked
CROSS JOIN LATERAL (
    SELECT queue.task, queue.wake_at
    FROM {schema}.queue
    WHERE queue.route = asked.route
        AND queue.priority = asked.priority
        AND queue.wake_at = asked.wake_at
        AND queue.task = asked.task
    FOR UPDATE
) AS locked
