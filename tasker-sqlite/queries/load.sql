-- A task with its whole history, its input included, and until when its owner's lease runs, in one
-- snapshot.
-- ?1 task
SELECT
    task.id, task.template, task.priority, task.state, task.degraded, task.version, task.owner,
    task.route, task.wake_at, task.created_at, task.ended_at,
    history.task, history.step, history.seq, history.at, history.author, history.attempt,
    history.ran_for, history.kind, history.result, history.detail,
    (SELECT worker.expires_at FROM worker WHERE worker.id = task.owner) AS lease_until
FROM task
JOIN history ON history.task = task.id
WHERE task.id = ?1
ORDER BY history.step, history.seq
