-- The first tasks on a route, in the order in which they are claimed.
-- ?1 route, ?2 how many
SELECT wake_at, task
FROM queue
WHERE route = ?1
ORDER BY wake_at, task
LIMIT ?2
