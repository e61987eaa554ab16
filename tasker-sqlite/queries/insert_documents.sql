-- Adds documents, unless they exist.
-- Each row: collection, key, state, due_at, body, now
INSERT INTO document (collection, key, version, state, due_at, body, created_at, written_at)
SELECT column1, column2, 1, column3, column4, column5, column6, column6
FROM (VALUES /* rows */ (?, ?, ?, ?, ?, ?))
WHERE column1 IS NOT NULL
ON CONFLICT (collection, key) DO NOTHING
