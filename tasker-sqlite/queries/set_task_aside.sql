-- Puts a task that cannot be read back into the queue; nothing else of it changes.
-- ?1 task, ?2 route, ?3 from when on it may be claimed
INSERT INTO queue (route, wake_at, task)
VALUES (?2, ?3, ?1)
ON CONFLICT (route, wake_at, task) DO NOTHING;

UPDATE task
SET wake_at = ?3
WHERE id = ?1
