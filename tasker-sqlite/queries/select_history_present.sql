-- Which of some history rows are there already.
-- Each row: task, step, seq
WITH wanted (task, step, seq) AS (
    VALUES /* rows */ (?, ?, ?)
)
SELECT history.task, history.step, history.seq
FROM wanted
CROSS JOIN history ON history.task = wanted.task
                  AND history.step = wanted.step
                  AND history.seq = wanted.seq
