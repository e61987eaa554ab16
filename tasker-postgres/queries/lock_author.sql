-- Keeps a living worker from being taken over.
-- $1 worker
SELECT id
FROM {schema}.worker
WHERE id = $1 AND gone_at IS NULL
FOR KEY SHARE
