-- Moves tasks.
-- Each row: id, state, degraded, version, owner, route, wake_at, ended_at
-- The plus keeps the planner from walking through the table for want of statistics.
WITH change (id, state, degraded, version, owner, route, wake_at, ended_at) AS (
    VALUES /* rows */ (?, ?, ?, ?, ?, ?, ?, ?)
)
UPDATE task
SET state = change.state,
    degraded = change.degraded,
    version = change.version,
    owner = change.owner,
    route = change.route,
    wake_at = change.wake_at,
    ended_at = change.ended_at
FROM change
WHERE task.id = +change.id
