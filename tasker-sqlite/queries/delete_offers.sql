-- Takes offers of a task back, or settled ones away.
-- ?1 task, ?2 the steps, a JSON array
DELETE FROM offer
WHERE task = ?1
  AND step IN (SELECT value FROM json_each(?2))
