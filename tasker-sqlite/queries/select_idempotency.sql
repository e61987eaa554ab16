-- The task that was submitted under a key, with its input.
-- ?1 namespace, ?2 name, ?3 key
SELECT idempotency.task, history.result
FROM idempotency
JOIN history ON history.task = idempotency.task
            AND history.step = -1
            AND history.seq = 0
WHERE idempotency.namespace = ?1
  AND idempotency.name = ?2
  AND idempotency.key = ?3
