-- Writes a document that is as it was read.
-- ?1 collection, ?2 key, ?3 version, ?4 state, ?5 due_at, ?6 body, ?7 now
UPDATE document
SET version = version + 1,
    state = ?4,
    due_at = ?5,
    body = ?6,
    written_at = ?7
WHERE collection = ?1
  AND key = ?2
  AND version = ?3
