-- Puts a task that cannot be read back into the queue; nothing else of it changes.
-- ?1 task, ?2 route, ?3 priority, ?4 from when on it may be claimed
INSERT INTO queue (route, priority, wake_at, task)
VALUES (?2, ?3, ?4, ?1)
ON CONFLICT (route, priority, wake_at, task) DO NOTHING;

UPDATE task
SET wake_at = ?4
WHERE id = ?1
