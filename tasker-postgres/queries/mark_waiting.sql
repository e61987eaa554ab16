-- Notes whether a worker waits to be notified.
-- $1 worker, $2 whether
UPDATE {schema}.worker
SET waiting = $2
WHERE id = $1 AND gone_at IS NULL AND waiting <> $2
