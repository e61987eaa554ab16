-- A template.
-- $1 key
SELECT body
FROM {schema}.template
WHERE key = $1
