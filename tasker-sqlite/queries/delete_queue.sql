-- Takes one task from the queue.
-- ?1 route, ?2 wake_at, ?3 task
DELETE FROM queue
WHERE route = ?1
  AND wake_at = ?2
  AND task = ?3
