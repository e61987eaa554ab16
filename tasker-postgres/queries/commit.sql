-- Applies what the owner of tasks concluded, one change for each task.
--
-- The lock on the worker's row keeps everybody out who would take its tasks away, and fails if the
-- worker is gone. Somebody who took a task away while the lock was waited for has raised `moved`:
-- then this statement's view of the tasks is old and nothing is written.
--
-- The comparison of the owner is written so that the index on it cannot serve: tasks are found by
-- their ids.
--
-- The time is that of the statement: it may be the last one of a long transaction.
--
-- $1 worker; parallel arrays of changes: $2 task, $3 version, $4 what becomes of it (0 it stays,
-- 1 it is queued, 2 it has ended, 3 it is held), $5 state, $6 degraded (null: as before), $7 delay
-- in microseconds, $8 route; parallel arrays of rows: $9 which change, $10 step, $11 seq,
-- $12 attempt, $13 ran_for, $14 kind, $15 result, $16 detail
WITH fence AS MATERIALIZED (
    SELECT worker.id, worker.moved
    FROM {schema}.worker
    WHERE worker.id = $1 AND worker.gone_at IS NULL
    FOR KEY SHARE
),
view AS MATERIALIZED (
    SELECT fence.id AS worker
    FROM fence
    JOIN {schema}.worker ON worker.id = $1 AND worker.moved = fence.moved
),
change AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $2::uuid[], $3::bigint[], $4::smallint[], $5::text[], $6::boolean[], $7::bigint[],
        $8::text[]
    ) WITH ORDINALITY AS change (
        task, version, fate, state, degraded, delay, route, nr
    )
),
kept AS (
    SELECT change.nr, change.task
    FROM view
    CROSS JOIN change
    CROSS JOIN LATERAL (
        SELECT
        FROM {schema}.task
        WHERE task.id = change.task
            AND task.version = change.version
            AND task.owner IS NOT DISTINCT FROM view.worker
        OFFSET 0
    ) AS held
    WHERE change.fate = 0
),
moved AS (
    UPDATE {schema}.task
    SET state = change.state,
        degraded = coalesce(change.degraded, task.degraded),
        version = task.version + 1,
        owner = NULL,
        route = coalesce(change.route, task.route),
        wake_at = CASE WHEN change.fate = 1 THEN least(
            statement_timestamp() + change.delay * interval '1 microsecond',
            timestamptz '9999-12-30 22:00:00+00'
        ) END,
        ended_at = CASE WHEN change.fate = 2 THEN statement_timestamp() END
    FROM view
    CROSS JOIN change
    WHERE change.fate <> 0
        AND task.id = ANY ($2)
        AND task.id = change.task
        AND task.version = change.version
        AND task.owner IS NOT DISTINCT FROM view.worker
    RETURNING change.nr, task.id AS task, change.fate, task.route, task.priority, task.wake_at
),
applied AS MATERIALIZED (
    SELECT nr, task FROM kept
    UNION ALL
    SELECT nr, task FROM moved
),
recorded AS (
    INSERT INTO {schema}.history (
        task, step, seq, at, worker, attempt, ran_for, kind, result, detail
    )
    SELECT
        applied.task, line.step, line.seq, statement_timestamp(), $1, line.attempt, line.ran_for,
        line.kind, line.result, line.detail
    FROM unnest(
        $9::bigint[], $10::int[], $11::int[], $12::int[], $13::bigint[], $14::text[], $15::text[],
        $16::text[]
    ) AS line (nr, step, seq, attempt, ran_for, kind, result, detail)
    JOIN applied USING (nr)
),
queued AS (
    INSERT INTO {schema}.queue (route, priority, wake_at, task)
    SELECT route, priority, wake_at, task
    FROM moved
    WHERE fate = 1
),
withdrawn AS (
    DELETE FROM {schema}.offer
    WHERE offer.task = ANY (ARRAY (SELECT task FROM moved))
)
SELECT
    statement_timestamp(),
    EXISTS (SELECT FROM fence),
    EXISTS (SELECT FROM view),
    ARRAY (SELECT nr FROM applied)
