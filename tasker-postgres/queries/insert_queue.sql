-- Queues tasks.
-- Parallel arrays: $1 route, $2 priority, $3 wake_at, $4 task
INSERT INTO {schema}.queue (route, priority, wake_at, task)
SELECT *
FROM unnest($1::text[], $2::smallint[], $3::timestamptz[], $4::uuid[])
