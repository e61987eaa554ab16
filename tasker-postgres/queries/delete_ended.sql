-- Deletes tasks that ended long ago, with their history, idempotency keys and alarms, and with their
-- escalations, whose keys begin with the task's id and a slash, but for those that nobody has resolved
-- yet; what somebody works on at this moment, such as retrying it, is left for another time.
--
-- Nothing else is left of an ended task: its offers and its place in the queue are gone. The arrays
-- keep the planner from reading whole tables.
--
-- $1 tasks, $2 for how long they have ended, in microseconds, $3 states
WITH gone AS MATERIALIZED (
    SELECT task.id
    FROM {schema}.task
    WHERE task.id = ANY ($1::uuid[])
        AND task.state = ANY ($3::text[])
        AND task.ended_at < now() - $2::bigint * interval '1 microsecond'
    ORDER BY task.id
    FOR UPDATE SKIP LOCKED
),
keys AS (
    DELETE FROM {schema}.idempotency
    WHERE idempotency.task = ANY (ARRAY (SELECT gone.id FROM gone))
),
past AS (
    DELETE FROM {schema}.history
    WHERE history.task = ANY (ARRAY (SELECT gone.id FROM gone))
),
alarms AS (
    DELETE FROM {schema}.document
    WHERE document.collection = 'alarm'
        AND document.key = ANY (ARRAY (SELECT gone.id::text FROM gone))
),
escalations AS (
    DELETE FROM {schema}.document
    WHERE document.collection = 'escalation'
        AND document.key = ANY (ARRAY (
            SELECT raised.key
            FROM gone
            CROSS JOIN LATERAL (
                SELECT document.key
                FROM {schema}.document
                WHERE document.collection = 'escalation'
                    AND document.key >= gone.id::text || '/'
                    AND document.key < gone.id::text || '0'
                    AND document.state = 'resolved'
                OFFSET 0
            ) AS raised
        ))
        AND document.state = 'resolved'
)
DELETE FROM {schema}.task
WHERE task.id = ANY (ARRAY (SELECT gone.id FROM gone))
