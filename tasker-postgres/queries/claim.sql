-- Takes tasks out of the queue for a worker that is alive, and says what else there is for it.
--
-- A lane is a route and a priority. How many tasks each lane is to give is found without locks, in
-- fair turns over the routes and by rank on each; then so many are locked that nobody else has.
-- What stands before a lane's mark is known to be gone, and need not be waded through.
--
-- $1 worker, $2 how many, $3 routes; parallel arrays of lanes: $4 route, $5 priority, $6 head start
-- in microseconds, $7 mark
WITH fence AS MATERIALIZED (
    SELECT worker.id
    FROM {schema}.worker
    WHERE worker.id = $1 AND worker.gone_at IS NULL
    FOR KEY SHARE
),
lane AS MATERIALIZED (
    SELECT *
    FROM unnest($4::text[], $5::smallint[], $6::bigint[], $7::timestamptz[])
        AS lane (route, priority, head_start, mark)
),
candidate AS MATERIALIZED (
    SELECT
        lane.route,
        lane.priority,
        due.rank,
        due.task,
        row_number() OVER (PARTITION BY lane.route ORDER BY due.rank, due.task) AS turn
    FROM lane
    CROSS JOIN LATERAL (
        SELECT queue.task, queue.wake_at - lane.head_start * interval '1 microsecond' AS rank
        FROM {schema}.queue
        WHERE queue.route = lane.route
            AND queue.priority = lane.priority
            AND queue.wake_at >= lane.mark
            AND queue.wake_at <= now()
        ORDER BY queue.wake_at, queue.task
        LIMIT $2::int + 1
    ) AS due
),
quota AS (
    SELECT chosen.route, chosen.priority, count(*) AS tasks
    FROM (SELECT * FROM candidate ORDER BY turn, rank, task LIMIT $2::int) AS chosen
    CROSS JOIN fence
    GROUP BY chosen.route, chosen.priority
),
taken AS (
    DELETE FROM {schema}.queue
    WHERE queue.ctid = ANY (ARRAY (
        SELECT free.ctid
        FROM quota
        JOIN lane USING (route, priority)
        CROSS JOIN LATERAL (
            SELECT queue.ctid
            FROM {schema}.queue
            WHERE queue.route = quota.route
                AND queue.priority = quota.priority
                AND queue.wake_at >= lane.mark
                AND queue.wake_at <= now()
            ORDER BY queue.wake_at, queue.task
            LIMIT quota.tasks
            FOR UPDATE SKIP LOCKED
        ) AS free
    ))
    RETURNING queue.route, queue.priority, queue.wake_at, queue.task
),
claimed AS (
    UPDATE {schema}.task
    SET owner = $1,
        state = CASE WHEN task.state = 'compensating' THEN task.state ELSE 'in_progress' END,
        version = task.version + 1,
        wake_at = NULL
    FROM taken
    WHERE task.id = taken.task AND task.id = ANY (ARRAY (SELECT task FROM taken))
    RETURNING
        task.id, task.template, task.state, task.degraded, task.priority, task.version, task.owner,
        task.route, task.wake_at, task.created_at, task.ended_at, task.input,
        taken.route AS queued_on, taken.priority AS queued_as, taken.wake_at AS queued_for
)
SELECT
    clock_timestamp(),
    EXISTS (SELECT FROM fence),
    (SELECT count(*) FROM candidate) > $2::int,
    (
        SELECT min(next.wake_at)
        FROM lane
        CROSS JOIN LATERAL (
            SELECT queue.wake_at
            FROM {schema}.queue
            WHERE queue.route = lane.route
                AND queue.priority = lane.priority
                AND queue.wake_at > now()
            ORDER BY queue.wake_at
            LIMIT 1
        ) AS next
    ),
    EXISTS (SELECT FROM {schema}.news WHERE news.worker = $1),
    EXISTS (
        SELECT
        FROM unnest($3::text[]) AS served (route)
        CROSS JOIN LATERAL (
            SELECT
            FROM {schema}.offer
            WHERE offer.holder IS NULL AND offer.route = served.route AND offer.offered_at <= now()
            LIMIT 1
        ) AS open
    ),
    claimed.*
FROM (VALUES (1)) AS always
LEFT JOIN claimed ON true
