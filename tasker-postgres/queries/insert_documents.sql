-- Adds documents, unless they exist.
-- Parallel arrays: $1 collection, $2 key, $3 state, $4 due_at, $5 body; $6 when
INSERT INTO {schema}.document (
    collection, key, version, state, due_at, body, created_at, written_at
)
SELECT collection, key, 1, state, due_at, body, $6, $6
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[])
    AS new (collection, key, state, due_at, body)
ORDER BY collection, key
ON CONFLICT (collection, key) DO NOTHING
