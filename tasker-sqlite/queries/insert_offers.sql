-- Offers steps.
-- Each row: task, step, seq, route, needs, offered_at
INSERT INTO offer (task, step, seq, route, needs, offered_at)
SELECT *
FROM (VALUES /* rows */ (?, ?, ?, ?, ?, ?))
WHERE column1 IS NOT NULL
