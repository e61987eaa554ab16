-- Deletes tasks that ended long ago, with their history and their idempotency keys. Nothing else but
-- perhaps an alarm is left of an ended task.
-- ?1 behind which id, ?2 up to which, ?3 the time before which they ended, ?4 to ?7 states
DELETE FROM idempotency
WHERE task IN (
    SELECT task.id
    FROM task
    WHERE task.id > ?1
        AND task.id <= ?2
        AND task.state IN (?4, ?5, ?6, ?7)
        AND task.ended_at < ?3
);

DELETE FROM history
WHERE task IN (
    SELECT task.id
    FROM task
    WHERE task.id > ?1
        AND task.id <= ?2
        AND task.state IN (?4, ?5, ?6, ?7)
        AND task.ended_at < ?3
);

DELETE FROM task
WHERE id > ?1
    AND id <= ?2
    AND state IN (?4, ?5, ?6, ?7)
    AND ended_at < ?3;
