-- Waits for the commits of workers to end and keeps new ones out; those that wait meanwhile will
-- notice that something has moved.
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
