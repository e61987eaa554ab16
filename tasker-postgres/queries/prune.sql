-- Forgets workers that have been gone for long, and what was left for those that are gone.
-- $1 for how long, in microseconds
WITH forgotten AS (
    DELETE FROM {schema}.worker
    WHERE gone_at < now() - $1::bigint * interval '1 microsecond'
)
DELETE FROM {schema}.news
WHERE NOT EXISTS (
    SELECT
    FROM {schema}.worker
    WHERE worker.id = news.worker AND worker.gone_at IS NULL
)
