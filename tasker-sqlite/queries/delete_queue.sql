-- Takes one task from the queue.
-- ?1 route, ?2 priority, ?3 wake_at, ?4 task
DELETE FROM queue
WHERE route = ?1
  AND priority = ?2
  AND wake_at = ?3
  AND task = ?4
