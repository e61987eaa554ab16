-- The time, and some documents of a collection.
-- $1 collection, $2 keys
SELECT
    clock_timestamp(),
    document.collection, document.key, document.version, document.state, document.due_at,
    document.body, document.created_at, document.written_at
FROM (VALUES (1)) AS always
LEFT JOIN LATERAL (
    SELECT *
    FROM {schema}.document
    WHERE document.collection = $1 AND document.key = ANY ($2)
    ORDER BY document.key
) AS document ON true
