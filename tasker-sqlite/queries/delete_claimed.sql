-- Takes the first tasks on a route from the queue, up to and including one.
-- ?1 route, ?2 wake_at and ?3 task of the last one
DELETE FROM queue
WHERE route = ?1
  AND (wake_at, task) <= (?2, ?3)
