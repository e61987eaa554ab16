-- Takes tasks out of the queue.
-- Parallel arrays: $1 route, $2 priority, $3 wake_at, $4 task
DELETE FROM {schema}.queue
WHERE queue.ctid = ANY (ARRAY (
    SELECT place.ctid
    FROM unnest($1::text[], $2::smallint[], $3::timestamptz[], $4::uuid[])
        AS gone (route, priority, wake_at, task)
    CROSS JOIN LATERAL (
        SELECT queue.ctid
        FROM {schema}.queue
        WHERE queue.route = gone.route
            AND queue.priority = gone.priority
            AND queue.wake_at = gone.wake_at
            AND queue.task = gone.task
        OFFSET 0
    ) AS place
))
