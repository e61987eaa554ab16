-- The time, and documents that somebody should look at, the longest due first.
-- $1 at most this many
SELECT
    clock_timestamp(),
    document.collection, document.key, document.version, document.state, document.due_at,
    document.body, document.created_at, document.written_at
FROM (VALUES (1)) AS always
LEFT JOIN LATERAL (
    SELECT *
    FROM {schema}.document
    WHERE document.due_at <= now()
    ORDER BY document.due_at, document.collection, document.key
    LIMIT $1
) AS document ON true
