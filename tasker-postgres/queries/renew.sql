-- Registers a worker or renews its lease, unless it is gone, and tells of the others, of the sum
-- of the versions of the documents about systems, and when the first document is due.
-- $1 worker, $2 name, $3 lease in microseconds, $4 spare, $5 running
WITH renewed AS (
    INSERT INTO {schema}.worker AS worker (id, name, expires_at, spare, running)
    VALUES (
        $1,
        $2,
        least(
            now() + $3::bigint * interval '1 microsecond',
            timestamptz '9999-12-30 22:00:00+00'
        ),
        $4,
        $5
    )
    ON CONFLICT (id) DO UPDATE
    SET name = excluded.name,
        expires_at = excluded.expires_at,
        spare = excluded.spare,
        running = excluded.running
    WHERE worker.gone_at IS NULL
    RETURNING worker.id
)
SELECT
    now(),
    coalesce(sum(worker.spare) FILTER (WHERE worker.expires_at > now()), 0)::bigint,
    min(worker.expires_at),
    (
        SELECT coalesce(sum(document.version), 0)::bigint
        FROM {schema}.document
        WHERE document.collection = 'system'
    ),
    (
        SELECT document.due_at
        FROM {schema}.document
        WHERE document.due_at > '-infinity'
        ORDER BY document.due_at
        LIMIT 1
    ),
    EXISTS (SELECT FROM renewed)
FROM {schema}.worker
WHERE worker.gone_at IS NULL AND worker.id <> $1
