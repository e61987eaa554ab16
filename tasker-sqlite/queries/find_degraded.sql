-- Lists tasks that are degraded, newest first, by their own index.
-- ?1 namespace, ?2 name, ?3 state, ?4 only tasks older than this one: each NULL for all;
-- ?5 at most this many; ?6 is 1
SELECT task.id, template.task_type, task.state, task.degraded, task.created_at, task.ended_at
FROM task
JOIN template ON template.key = task.template
WHERE (?1 IS NULL OR template.namespace = ?1)
  AND (?2 IS NULL OR template.name = ?2)
  AND (?3 IS NULL OR task.state = ?3)
  AND task.degraded = 1
  AND ?6 = 1
  AND task.id < coalesce(?4, x'ffffffffffffffffffffffffffffffffff')
ORDER BY task.id DESC
LIMIT ?5
