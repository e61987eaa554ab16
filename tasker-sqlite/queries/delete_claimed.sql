-- Takes the first tasks of a priority on a route from the queue, up to and including one.
-- ?1 route, ?2 priority, ?3 wake_at and ?4 task of the last one
DELETE FROM queue
WHERE route = ?1
  AND priority = ?2
  AND (wake_at, task) <= (?3, ?4)
