-- Notes of tasks that were never claimed, and so would be taken for new, that something is on
-- record: only their route, which is their template's own, is spelled out.
-- $1 tasks
UPDATE {schema}.task
SET route = template.task_type
FROM {schema}.template
WHERE task.id = ANY ($1)
    AND task.version = 0
    AND task.route IS NULL
    AND template.key = task.template
