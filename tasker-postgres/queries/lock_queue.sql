-- Keeps queued tasks from being claimed.
-- Parallel arrays: $1 route, $2 priority, $3 wake_at, $4 task
SELECT queue.task, queue.wake_at
FROM unnest($1::text[], $2::smallint[], $3::timestamptz[], $4::uuid[])
    AS asked (route, priority, wake_at, task)
JOIN {schema}.queue USING (route, priority, wake_at, task)
ORDER BY queue.task
FOR UPDATE OF queue
