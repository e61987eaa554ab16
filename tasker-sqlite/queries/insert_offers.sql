-- Offers steps; an older offer of the same step is replaced.
-- Each row: task, step, seq, route, needs, offered_at
INSERT INTO offer (task, step, seq, route, needs, offered_at)
SELECT *
FROM (VALUES /* rows */ (?, ?, ?, ?, ?, ?))
WHERE column1 IS NOT NULL
ON CONFLICT (task, step) DO UPDATE
SET seq = excluded.seq,
    route = excluded.route,
    needs = excluded.needs,
    offered_at = excluded.offered_at,
    holder = NULL
