-- The time, and a page of a collection, newest first.
-- $1 collection, $2 created_at and $3 key of the last one of the page before, $4 at most this many
SELECT
    clock_timestamp(),
    document.collection, document.key, document.version, document.state, document.due_at,
    document.body, document.created_at, document.written_at
FROM (VALUES (1)) AS always
LEFT JOIN LATERAL (
    SELECT *
    FROM {schema}.document
    WHERE document.collection = $1 AND (document.created_at, document.key) < ($2, $3)
    ORDER BY document.created_at DESC, document.key DESC
    LIMIT $4
) AS document ON true
