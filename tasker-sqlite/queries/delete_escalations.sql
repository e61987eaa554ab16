-- Deletes the escalations of tasks that are deleted, but for those that nobody has resolved yet. Their
-- keys begin with the task's id and a slash.
-- Each row: the least of those keys, and what is greater than all of them
WITH wanted (least, greater) AS (VALUES /* rows */ (?, ?))
DELETE FROM document
WHERE (collection, key) IN (
    SELECT document.collection, document.key
    FROM wanted
    CROSS JOIN document
    WHERE document.collection = 'escalation'
        AND document.key >= wanted.least
        AND document.key < wanted.greater
        AND document.state = 'resolved'
)
