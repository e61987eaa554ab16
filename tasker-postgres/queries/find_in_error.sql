-- Tasks in state error, newest first: the literal lets a partial index serve.
-- $1 namespace, $2 name, $3 before, $4 how many
SELECT
    task.id, template.task_type, task.state, task.degraded, task.created_at, task.ended_at
FROM {schema}.task
JOIN {schema}.template ON template.key = task.template
WHERE ($1::text IS NULL OR template.namespace = $1)
    AND ($2::text IS NULL OR template.name = $2)
    AND task.state = 'error'
    AND task.id < coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
ORDER BY task.id DESC
LIMIT $4
