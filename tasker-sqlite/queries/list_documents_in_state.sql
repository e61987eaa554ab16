-- A page of those documents of a collection that are in a state, newest first.
-- ?1 collection, ?2 state, ?3 created_at and ?4 key of the last one of the page before,
-- ?5 at most this many
SELECT collection, key, version, state, due_at, body, created_at, written_at
FROM document
WHERE collection = ?1
  AND state = ?2
  AND (created_at, key) < (?3, ?4)
ORDER BY created_at DESC, key DESC
LIMIT ?5
