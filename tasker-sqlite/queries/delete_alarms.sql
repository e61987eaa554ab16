-- Deletes the alarms of tasks that are deleted.
-- Each row: key
DELETE FROM document
WHERE collection = 'alarm'
  AND key IN (VALUES /* rows */ (?))
