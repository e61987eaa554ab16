-- Puts an end to a worker, whose row is locked: what it owned is queued again, what it held may be
-- claimed again.
-- $1 worker, $2 kind and $3 detail of the history row
WITH gone AS (
    UPDATE {schema}.worker
    SET gone_at = now(),
        waiting = false,
        spare = 0,
        running = '[]'
    WHERE worker.id = $1
),
owned AS MATERIALIZED (
    SELECT task.id, task.priority, template.task_type
    FROM {schema}.task
    JOIN {schema}.template ON template.key = task.template
    WHERE task.owner = $1
),
moved AS (
    UPDATE {schema}.task
    SET owner = NULL,
        version = task.version + 1,
        route = NULL,
        wake_at = now()
    FROM owned
    WHERE task.id = owned.id AND task.id = ANY (ARRAY (SELECT id FROM owned))
),
logged AS (
    INSERT INTO {schema}.history (task, step, seq, at, worker, attempt, ran_for, kind, detail)
    SELECT
        owned.id,
        -1,
        1 + coalesce(
            (
                SELECT max(history.seq)
                FROM {schema}.history
                WHERE history.task = owned.id AND history.step = -1
            ),
            0
        ),
        now(), $1, 0, 0, $2, $3
    FROM owned
),
queued AS (
    INSERT INTO {schema}.queue (route, priority, wake_at, task)
    SELECT owned.task_type, owned.priority, now(), owned.id
    FROM owned
),
withdrawn AS (
    DELETE FROM {schema}.offer
    WHERE offer.task = ANY (ARRAY (SELECT id FROM owned))
),
freed AS (
    UPDATE {schema}.offer
    SET holder = NULL
    WHERE offer.holder = $1 AND offer.task NOT IN (SELECT id FROM owned)
)
DELETE FROM {schema}.news
WHERE news.worker = $1
