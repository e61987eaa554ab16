-- Offers on a route that may be taken, oldest first.
-- ?1 route, ?2 how many
SELECT task, step, seq, needs
FROM offer
WHERE route = ?1
  AND holder IS NULL
ORDER BY offered_at, task, step
LIMIT ?2
