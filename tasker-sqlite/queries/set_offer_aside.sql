-- Leaves an offer whose task cannot be read for later.
-- ?1 task, ?2 step, ?3 from when on it may be taken
UPDATE offer
SET offered_at = ?3
WHERE task = ?1
  AND step = ?2
