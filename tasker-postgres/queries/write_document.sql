-- Writes or deletes a document that is as it was read, or adds one that there must not be; and
-- says whether.
-- $1 collection, $2 key, $3 version or null, $4 state or null, $5 due in microseconds, $6 body
WITH content AS MATERIALIZED (
    SELECT
        statement_timestamp() AS now,
        CASE WHEN $5::bigint IS NOT NULL THEN least(
            statement_timestamp() + $5 * interval '1 microsecond',
            timestamptz '9999-12-30 22:00:00+00'
        ) END AS due_at
),
made AS (
    INSERT INTO {schema}.document (
        collection, key, version, state, due_at, body, created_at, written_at
    )
    SELECT $1, $2, 1, $4, due_at, $6, now, now
    FROM content
    WHERE $3::bigint IS NULL AND $4::text IS NOT NULL
    ON CONFLICT (collection, key) DO NOTHING
    RETURNING 1
),
changed AS (
    UPDATE {schema}.document
    SET version = document.version + 1,
        state = $4,
        due_at = content.due_at,
        body = $6,
        written_at = greatest(content.now, document.written_at)
    FROM content
    WHERE document.collection = $1
        AND document.key = $2
        AND document.version = $3
        AND $4 IS NOT NULL
    RETURNING 1
),
deleted AS (
    DELETE FROM {schema}.document
    WHERE document.collection = $1
        AND document.key = $2
        AND document.version = $3
        AND $4 IS NULL
    RETURNING 1
)
SELECT
    clock_timestamp(),
    EXISTS (SELECT FROM made)
        OR EXISTS (SELECT FROM changed)
        OR EXISTS (SELECT FROM deleted)
        OR (
            $3 IS NULL
            AND $4 IS NULL
            AND NOT EXISTS (
                SELECT
                FROM {schema}.document
                WHERE document.collection = $1 AND document.key = $2
            )
        )
