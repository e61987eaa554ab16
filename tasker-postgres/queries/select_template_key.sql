-- The key of a template.
-- $1 fingerprint
SELECT key
FROM {schema}.template
WHERE fingerprint = $1
