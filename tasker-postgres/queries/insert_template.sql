-- Keeps a template, unless it is there.
-- $1 fingerprint, $2 namespace, $3 name, $4 task type, $5 body
INSERT INTO {schema}.template (fingerprint, namespace, name, task_type, body)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (fingerprint) DO NOTHING
