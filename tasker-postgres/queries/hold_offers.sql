-- Makes a worker that is alive hold open offers, in fair turns over the routes.
-- $1 worker, $2 routes, $3 how many
WITH fence AS MATERIALIZED (
    SELECT worker.id
    FROM {schema}.worker
    WHERE worker.id = $1 AND worker.gone_at IS NULL
    FOR KEY SHARE
),
candidate AS MATERIALIZED (
    SELECT served.route, open.turn, open.offered_at
    FROM unnest($2::text[]) AS served (route)
    CROSS JOIN LATERAL (
        SELECT
            offer.offered_at,
            row_number() OVER (ORDER BY offer.offered_at, offer.task, offer.step) AS turn
        FROM {schema}.offer
        WHERE offer.holder IS NULL AND offer.route = served.route AND offer.offered_at <= now()
        ORDER BY offer.offered_at, offer.task, offer.step
        LIMIT $3::int
    ) AS open
),
quota AS (
    SELECT chosen.route, count(*) AS steps
    FROM (SELECT * FROM candidate ORDER BY turn, offered_at LIMIT $3::int) AS chosen
    CROSS JOIN fence
    GROUP BY chosen.route
)
UPDATE {schema}.offer
SET holder = $1
WHERE offer.ctid = ANY (ARRAY (
    SELECT free.ctid
    FROM quota
    CROSS JOIN LATERAL (
        SELECT offer.ctid
        FROM {schema}.offer
        WHERE offer.holder IS NULL AND offer.route = quota.route AND offer.offered_at <= now()
        ORDER BY offer.offered_at, offer.task, offer.step
        LIMIT quota.steps
        FOR UPDATE SKIP LOCKED
    ) AS free
))
RETURNING offer.task, offer.step, offer.seq, offer.needs
