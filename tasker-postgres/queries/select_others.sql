-- What the other living workers could run, and when the first of their leases runs out; the sum of
-- the versions of the documents about systems, and when the first document is due.
-- $1 worker
SELECT
    now(),
    coalesce(sum(spare) FILTER (WHERE expires_at > now()), 0)::bigint,
    min(expires_at),
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
    )
FROM {schema}.worker
WHERE gone_at IS NULL AND id <> $1
