-- Offers on a route that may be taken, oldest first, without those that were set aside.
-- ?1 route, ?2 how many, ?3 now
SELECT task, step, seq, needs
FROM offer
WHERE route = ?1
  AND holder IS NULL
  AND offered_at <= ?3
ORDER BY offered_at, task, step
LIMIT ?2
