-- What the other living workers could run, and when the first of their leases runs out.
-- $1 worker
SELECT
    now(),
    coalesce(sum(spare) FILTER (WHERE expires_at > now()), 0)::bigint,
    min(expires_at)
FROM {schema}.worker
WHERE gone_at IS NULL AND id <> $1
