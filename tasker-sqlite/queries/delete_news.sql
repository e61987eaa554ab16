-- Hands a worker its news, once.
-- ?1 worker
DELETE FROM news
WHERE worker = ?1
RETURNING key, task, step, seq
