-- Documents that somebody should look at, the longest due first.
-- ?1 now, ?2 at most this many
SELECT collection, key, version, state, due_at, body, created_at, written_at
FROM document
WHERE due_at <= ?1
ORDER BY due_at, collection, key
LIMIT ?2
