-- The offers that a worker holds.
-- ?1 worker
SELECT task, step, seq, needs
FROM offer
WHERE holder = ?1
ORDER BY offered_at, task, step
