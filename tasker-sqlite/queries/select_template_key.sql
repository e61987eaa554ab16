-- Which key a template has.
-- ?1 fingerprint
SELECT key
FROM template
WHERE fingerprint = ?1
