-- What a worker owns, without the tasks that it knows of.
-- $1 worker, $2 the tasks that it knows of
WITH task AS MATERIALIZED (
    SELECT *
    FROM {schema}.task
    WHERE task.owner = $1 AND task.id <> ALL ($2::uuid[])
)
SELECT
    clock_timestamp(),
    task.id, task.template, task.state, task.degraded, task.priority, task.version, task.owner,
    task.route, task.wake_at, task.created_at, task.ended_at,
    line.task, line.step, line.seq, line.at, line.worker, line.operator, line.attempt,
    line.ran_for, line.kind, line.result, line.detail
FROM task
CROSS JOIN LATERAL (
    SELECT
        task.id AS task, -1 AS step, 0 AS seq, task.created_at AS at, NULL::uuid AS worker,
        '' AS operator, 0 AS attempt, 0::bigint AS ran_for, 'submitted' AS kind,
        task.input AS result, NULL::text AS detail
    UNION ALL
    SELECT
        history.task, history.step, history.seq, history.at, history.worker, history.operator,
        history.attempt, history.ran_for, history.kind, history.result, history.detail
    FROM {schema}.history
    WHERE history.task = task.id
) AS line
ORDER BY task.id, line.step, line.seq
