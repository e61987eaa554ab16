-- The offers that a worker holds.
-- $1 worker
SELECT task, step, seq, needs
FROM {schema}.offer
WHERE holder = $1
