-- Some documents of a collection.
-- ?1 collection, ?2 the keys, a JSON array
SELECT collection, key, version, state, due_at, body, created_at, written_at
FROM document
WHERE collection = ?1
  AND key IN (SELECT value FROM json_each(?2))
ORDER BY key
