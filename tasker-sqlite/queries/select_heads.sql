-- When the first task of each priority may be claimed, on those of some routes that have any.
-- ?1 the routes, a JSON array; ?2, ?3, ?4 the priorities
SELECT
    served.value,
    (
        SELECT queue.wake_at
        FROM queue
        WHERE queue.route = served.value
          AND queue.priority = ?2
        ORDER BY queue.wake_at
        LIMIT 1
    ),
    (
        SELECT queue.wake_at
        FROM queue
        WHERE queue.route = served.value
          AND queue.priority = ?3
        ORDER BY queue.wake_at
        LIMIT 1
    ),
    (
        SELECT queue.wake_at
        FROM queue
        WHERE queue.route = served.value
          AND queue.priority = ?4
        ORDER BY queue.wake_at
        LIMIT 1
    )
FROM json_each(?1) AS served
WHERE EXISTS (
    SELECT 1
    FROM queue
    WHERE queue.route = served.value
)
