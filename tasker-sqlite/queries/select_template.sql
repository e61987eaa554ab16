-- A template's body.
-- ?1 key
SELECT body
FROM template
WHERE key = ?1
