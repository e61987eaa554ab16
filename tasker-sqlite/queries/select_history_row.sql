-- One row of history.
-- ?1 task, ?2 step, ?3 seq
SELECT task, step, seq, at, author, attempt, ran_for, kind, result, detail
FROM history
WHERE task = ?1
  AND step = ?2
  AND seq = ?3
