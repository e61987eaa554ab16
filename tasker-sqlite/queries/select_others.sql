-- How many more steps the other living workers could run, and when the first of all leases but one
-- runs out.
-- ?1 worker, ?2 now
SELECT
    coalesce(sum(spare) FILTER (WHERE expires_at > ?2), 0),
    min(expires_at)
FROM worker
WHERE id <> ?1
