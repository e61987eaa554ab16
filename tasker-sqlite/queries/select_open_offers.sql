-- Offers that a worker may take, oldest first.
-- ?1 the routes that it serves, a JSON array, ?2 the worker, ?3 how many
SELECT offer.task, offer.step, offer.seq, offer.needs
FROM offer
JOIN task ON task.id = offer.task
WHERE offer.holder IS NULL
  AND offer.route IN (SELECT value FROM json_each(?1))
  AND task.owner IS NOT ?2
ORDER BY offer.offered_at, offer.task, offer.step
LIMIT ?3
