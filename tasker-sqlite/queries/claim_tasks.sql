-- Gives tasks to a worker.
-- Each row: worker, state, id
-- The plus keeps the planner from walking through the table for want of statistics.
WITH claimed (worker, state, id) AS (
    VALUES /* rows */ (?, ?, ?)
)
UPDATE task
SET owner = claimed.worker,
    state = claimed.state,
    version = task.version + 1,
    wake_at = NULL
FROM claimed
WHERE task.id = +claimed.id
