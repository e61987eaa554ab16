-- The tasks that have some idempotency keys.
-- Parallel arrays: $1 namespace, $2 name, $3 key
SELECT asked.nr, task.id, task.input
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS asked (namespace, name, key, nr)
CROSS JOIN LATERAL (
    SELECT idempotency.task
    FROM {schema}.idempotency
    WHERE idempotency.namespace = asked.namespace
        AND idempotency.name = asked.name
        AND idempotency.key = asked.key
    OFFSET 0
) AS taken
CROSS JOIN LATERAL (
    SELECT task.id, task.input
    FROM {schema}.task
    WHERE task.id = taken.task
    OFFSET 0
) AS task
