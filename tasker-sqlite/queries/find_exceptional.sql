-- Lists tasks that are in one of the less usual states, newest first, by their own index.
-- ?1 namespace, ?2 name, ?4 only tasks older than this one: each NULL for all; ?3 state;
-- ?5 at most this many; ?6 whether degraded, NULL for all
SELECT task.id, template.task_type, task.state, task.degraded, task.created_at, task.ended_at
FROM task
JOIN template ON template.key = task.template
WHERE (?1 IS NULL OR template.namespace = ?1)
  AND (?2 IS NULL OR template.name = ?2)
  AND task.state = ?3
  AND task.state NOT IN ('pending', 'in_progress', 'complete')
  AND (?6 IS NULL OR task.degraded = ?6)
  AND task.id < coalesce(?4, x'ffffffffffffffffffffffffffffffffff')
ORDER BY task.id DESC
LIMIT ?5
