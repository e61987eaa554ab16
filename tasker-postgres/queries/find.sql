-- Tasks, newest first.
-- $1 namespace, $2 name, $3 state, $4 before, $5 how many, $6 whether degraded
SELECT
    task.id, template.task_type, task.state, task.degraded, task.created_at, task.ended_at
FROM {schema}.task
JOIN {schema}.template ON template.key = task.template
WHERE ($1::text IS NULL OR template.namespace = $1)
    AND ($2::text IS NULL OR template.name = $2)
    AND ($3::text IS NULL OR task.state = $3)
    AND ($6::boolean IS NULL OR task.degraded = $6)
    AND task.id < coalesce($4::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
ORDER BY task.id DESC
LIMIT $5
