-- Waits for the commits of workers to end and keeps new ones out; those that wait meanwhile will
-- notice that something has moved. Not the update alone: a commit that begins before it and locks
-- the row after it would be given the row as it was, since none of its keys changes.
-- $1 workers
WITH locked AS (
    SELECT id
    FROM {schema}.worker
    WHERE id = ANY ($1)
    ORDER BY id
    FOR UPDATE
)
UPDATE {schema}.worker
SET moved = worker.moved + 1
FROM locked
WHERE worker.id = locked.id AND worker.id = ANY ($1)
