-- Notes that a worker that never registered will not do so any more.
-- $1 worker, $2 name
INSERT INTO {schema}.worker (id, name, expires_at, spare, running, gone_at)
VALUES ($1, $2, now(), 0, '[]', now())
ON CONFLICT (id) DO NOTHING
