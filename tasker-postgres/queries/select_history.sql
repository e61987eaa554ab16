-- The histories of those tasks that are still where they were; one row of nulls for an empty one.
-- Parallel arrays: $1 task, $2 version
SELECT
    task.id,
    history.task, history.step, history.seq, history.at, history.worker, history.operator,
    history.attempt, history.ran_for, history.kind, history.result, history.detail
FROM unnest($1::uuid[], $2::bigint[]) AS asked (task, version)
CROSS JOIN LATERAL (
    SELECT task.id
    FROM {schema}.task
    WHERE task.id = asked.task AND task.version = asked.version
    OFFSET 0
) AS task
LEFT JOIN LATERAL (
    SELECT *
    FROM {schema}.history
    WHERE history.task = asked.task
    OFFSET 0
) AS history ON true
ORDER BY history.task, history.step, history.seq
