-- Takes offers back, or settled ones away.
-- Each row: task, step, seq
DELETE FROM offer
WHERE (task, step, seq) IN (VALUES /* rows */ (?, ?, ?))
