-- Gives offers to a worker.
-- Each row: worker, task, step
-- The plus keeps the planner from walking through the table for want of statistics.
WITH claimed (worker, task, step) AS (
    VALUES /* rows */ (?, ?, ?)
)
UPDATE offer
SET holder = claimed.worker
FROM claimed
WHERE offer.task = +claimed.task
  AND offer.step = +claimed.step
