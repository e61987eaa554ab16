-- The tasks of offered steps, each with its input (in row 0 of its own log) and the rows of some
-- of its logs.
-- Parallel arrays: $1 which offer, $2 task; $3 which offer, $4 step
SELECT
    clock_timestamp(), asked.nr,
    task.id, task.template, task.state, task.degraded, task.priority, task.version, task.owner,
    task.route, task.wake_at, task.created_at, task.ended_at,
    line.task, line.step, line.seq, line.at, line.worker, line.operator, line.attempt,
    line.ran_for, line.kind, line.result, line.detail
FROM unnest($1::int[], $2::uuid[]) AS asked (nr, task)
CROSS JOIN LATERAL (
    SELECT *
    FROM {schema}.task
    WHERE task.id = asked.task
    OFFSET 0
) AS task
CROSS JOIN LATERAL (
    SELECT
        task.id AS task, -1 AS step, 0 AS seq, task.created_at AS at, NULL::uuid AS worker,
        '' AS operator, 0 AS attempt, 0::bigint AS ran_for, 'submitted' AS kind,
        task.input AS result, NULL::text AS detail
    UNION ALL
    SELECT
        history.task, history.step, history.seq, history.at, history.worker, history.operator,
        history.attempt, history.ran_for, history.kind, history.result, history.detail
    FROM unnest($3::int[], $4::int[]) AS needed (nr, step)
    CROSS JOIN LATERAL (
        SELECT *
        FROM {schema}.history
        WHERE history.task = task.id AND history.step = needed.step
        OFFSET 0
    ) AS history
    WHERE needed.nr = asked.nr
) AS line
ORDER BY asked.nr, line.step, line.seq
