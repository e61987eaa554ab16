-- How many more steps the other living workers could run, and when the first of all leases but one
-- runs out; the sum of the versions of the documents about systems, and when the first document is
-- due.
-- ?1 worker, ?2 now
SELECT
    coalesce(sum(spare) FILTER (WHERE expires_at > ?2), 0),
    min(expires_at),
    (
        SELECT coalesce(sum(document.version), 0)
        FROM document
        WHERE document.collection = 'system'
    ),
    (
        SELECT document.due_at
        FROM document
        WHERE document.due_at >= 0
        ORDER BY document.due_at
        LIMIT 1
    )
FROM worker
WHERE id <> ?1
