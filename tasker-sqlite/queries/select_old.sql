-- The next tasks in the order of their ids, and whether they are of those that ended long ago.
--
-- Ids are UUIDs of version 7: they begin with the time of submission, which is before that of the
-- end. So a walk along the primary key up to the id of the time in question meets all of them. An
-- index by the end would serve as well, and cost every end of a task another entry.
--
-- ?1 behind which id, ?2 up to which, ?3 the time before which they ended, ?4 to ?7 states, ?8
-- how many
SELECT
    task.id,
    task.state IN (?4, ?5, ?6, ?7) AND task.ended_at IS NOT NULL AND task.ended_at < ?3
FROM task
WHERE task.id > ?1 AND task.id < ?2
ORDER BY task.id
LIMIT ?8
