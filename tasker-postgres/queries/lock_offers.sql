-- The offers of some tasks.
-- $1 tasks
SELECT task, step, seq, holder
FROM {schema}.offer
WHERE task = ANY ($1)
ORDER BY task, step
FOR UPDATE
