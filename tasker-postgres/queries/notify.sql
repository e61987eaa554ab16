-- Notifies the workers of other stores, if any of them waits or there is news for one: who has its
-- hands full waits for nothing else.
-- $1 channel, $2 who notifies, $3 the workers that are told otherwise
SELECT pg_notify($1, $2)
WHERE EXISTS (
    SELECT
    FROM {schema}.worker
    WHERE worker.gone_at IS NULL AND worker.waiting AND worker.id <> ALL ($3::uuid[])
)
OR EXISTS (
    SELECT
    FROM {schema}.worker
    CROSS JOIN LATERAL (
        SELECT
        FROM {schema}.news
        WHERE news.worker = worker.id
        LIMIT 1
    ) AS unheard
    WHERE worker.gone_at IS NULL AND worker.id <> ALL ($3::uuid[])
)
