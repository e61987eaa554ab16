-- Waits for the commits of a worker to end and keeps new ones out.
-- $1 worker
SELECT gone_at IS NOT NULL
FROM {schema}.worker
WHERE id = $1
FOR UPDATE
