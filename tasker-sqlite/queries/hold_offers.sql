-- Gives offers to a worker.
-- Each row: worker, task, step, seq
WITH claimed (worker, task, step, seq) AS (
    VALUES /* rows */ (?, ?, ?, ?)
)
UPDATE offer
SET holder = claimed.worker
FROM claimed
WHERE offer.task = claimed.task
  AND offer.step = claimed.step
  AND offer.seq = claimed.seq
