-- The history of some logs of a task.
-- ?1 task, ?2 the steps, a JSON array
SELECT task, step, seq, at, author, attempt, ran_for, kind, result, detail
FROM history
WHERE task = ?1
  AND step IN (SELECT value FROM json_each(?2))
ORDER BY step, seq
