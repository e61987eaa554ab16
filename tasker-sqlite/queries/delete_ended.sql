-- Deletes tasks that ended long ago, with their history and their idempotency keys. Nothing else is
-- left of an ended task.
-- ?1 behind which id, ?2 up to which, ?3 and ?4 states, ?5 the time before which they ended
DELETE FROM idempotency
WHERE task IN (
    SELECT task.id
    FROM task
    WHERE task.id > ?1
        AND task.id <= ?2
        AND task.state IN (?3, ?4)
        AND task.ended_at < ?5
);

DELETE FROM history
WHERE task IN (
    SELECT task.id
    FROM task
    WHERE task.id > ?1
        AND task.id <= ?2
        AND task.state IN (?3, ?4)
        AND task.ended_at < ?5
);

DELETE FROM task
WHERE id > ?1
    AND id <= ?2
    AND state IN (?3, ?4)
    AND ended_at < ?5;
