-- How many more steps the other living workers could run.
-- ?1 worker, ?2 now
SELECT coalesce(sum(spare), 0)
FROM worker
WHERE id <> ?1
  AND expires_at > ?2
