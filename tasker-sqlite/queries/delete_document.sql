-- Deletes a document that is as it was read.
-- ?1 collection, ?2 key, ?3 version
DELETE FROM document
WHERE collection = ?1
  AND key = ?2
  AND version = ?3
