-- A task with its history, and until when its owner's lease runs; its input stands in row 0 of its own log.
-- The time is read after the rows that are seen were written, so it is not before theirs.
-- $1 task
SELECT
    clock_timestamp(),
    task.id, task.template, task.state, task.degraded, task.priority, task.version, task.owner,
    task.route, task.wake_at, task.created_at, task.ended_at,
    line.task, line.step, line.seq, line.at, line.worker, line.operator, line.attempt,
    line.ran_for, line.kind, line.result, line.detail,
    (
        SELECT worker.expires_at
        FROM {schema}.worker
        WHERE worker.id = task.owner AND worker.gone_at IS NULL
    ) AS lease_until
FROM {schema}.task
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
WHERE task.id = $1
ORDER BY line.step, line.seq
