-- A worker whose lease ran out and in whose name nothing is being committed.
SELECT id
FROM {schema}.worker
WHERE gone_at IS NULL AND expires_at < now()
ORDER BY expires_at
LIMIT 1
FOR UPDATE SKIP LOCKED
