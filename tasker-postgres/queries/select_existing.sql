-- The tasks that have some idempotency keys.
-- Parallel arrays: $1 namespace, $2 name, $3 key
SELECT asked.nr, task.id, task.input
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS asked (namespace, name, key, nr)
JOIN {schema}.idempotency
    ON idempotency.namespace = asked.namespace
    AND idempotency.name = asked.name
    AND idempotency.key = asked.key
JOIN {schema}.task ON task.id = idempotency.task
