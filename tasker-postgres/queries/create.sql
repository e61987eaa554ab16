-- Stores tasks: those without a key, and those whose key is new. Whoever is to own one must be
-- alive; the lock keeps it from being taken over meanwhile.
-- Parallel arrays: $1 id, $2 template, $3 input, $4 delay in microseconds, $5 priority, $6 route,
-- $7 claimant or null, $8 namespace, $9 name, $10 idempotency key or null.
-- Parallel arrays of documents to add with some of them, for most none: $11 which task, $12
-- collection, $13 key, $14 state, $15 due in microseconds, $16 body
WITH arrival AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $1::uuid[], $2::int[], $3::text[], $4::bigint[], $5::smallint[], $6::text[], $7::uuid[],
        $8::text[], $9::text[], $10::text[]
    ) WITH ORDINALITY AS arrival (
        id, template, input, delay, priority, route, claimant, namespace, name, key, nr
    )
),
living AS MATERIALIZED (
    SELECT worker.id
    FROM {schema}.worker
    WHERE worker.id = ANY ($7) AND worker.gone_at IS NULL
    ORDER BY worker.id
    FOR KEY SHARE
),
-- In the order of the keys, so that two batches with the same keys never wait for each other.
keyed AS (
    INSERT INTO {schema}.idempotency (namespace, name, key, task)
    SELECT namespace, name, key, id
    FROM arrival
    WHERE key IS NOT NULL
    ORDER BY namespace, name, key, nr
    ON CONFLICT (namespace, name, key) DO NOTHING
    RETURNING task
),
fresh AS MATERIALIZED (
    SELECT
        arrival.*,
        CASE WHEN arrival.delay = 0 THEN living.id END AS owner,
        least(
            now() + arrival.delay * interval '1 microsecond',
            timestamptz '9999-12-30 22:00:00+00'
        ) AS wake_at
    FROM arrival
    LEFT JOIN living ON living.id = arrival.claimant
    WHERE arrival.key IS NULL OR arrival.id IN (SELECT task FROM keyed)
),
stored AS (
    INSERT INTO {schema}.task (
        id, template, state, degraded, priority, version, owner, wake_at, created_at, input
    )
    SELECT
        id,
        template,
        CASE WHEN owner IS NULL THEN 'pending' ELSE 'in_progress' END,
        false,
        priority,
        CASE WHEN owner IS NULL THEN 0 ELSE 1 END,
        owner,
        CASE WHEN owner IS NULL THEN wake_at END,
        now(),
        input
    FROM fresh
),
queued AS (
    INSERT INTO {schema}.queue (route, priority, wake_at, task)
    SELECT route, priority, wake_at, id
    FROM fresh
    WHERE owner IS NULL
),
written AS (
    INSERT INTO {schema}.document (
        collection, key, version, state, due_at, body, created_at, written_at
    )
    SELECT
        new.collection,
        new.key,
        1,
        new.state,
        CASE WHEN new.due_in IS NOT NULL THEN least(
            now() + new.due_in * interval '1 microsecond',
            timestamptz '9999-12-30 22:00:00+00'
        ) END,
        new.body,
        now(),
        now()
    FROM unnest($11::bigint[], $12::text[], $13::text[], $14::text[], $15::bigint[], $16::text[])
        AS new (nr, collection, key, state, due_in, body)
    JOIN fresh USING (nr)
    ON CONFLICT (collection, key) DO NOTHING
)
SELECT now(), nr, owner IS NOT NULL
FROM fresh
