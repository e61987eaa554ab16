-- When the first task on each of some routes may be claimed.
-- ?1 the routes, a JSON array
SELECT route, wake_at
FROM (
    SELECT
        served.value AS route,
        (
            SELECT queue.wake_at
            FROM queue
            WHERE queue.route = served.value
            ORDER BY queue.wake_at
            LIMIT 1
        ) AS wake_at
    FROM json_each(?1) AS served
)
WHERE wake_at IS NOT NULL
