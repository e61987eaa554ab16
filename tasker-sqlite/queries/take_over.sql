-- Puts an end to a worker: what it owned is queued again, what it held may be claimed again.
-- ?1 worker, ?2 now, ?3 kind and ?4 detail of the history row
INSERT INTO history (task, step, seq, at, author, attempt, ran_for, kind, detail)
SELECT
    task.id,
    -1,
    1 + (SELECT max(seq) FROM history WHERE history.task = task.id AND history.step = -1),
    ?2, ?1, 0, 0, ?3, ?4
FROM task
WHERE task.owner = ?1;

INSERT INTO queue (route, priority, wake_at, task)
SELECT template.task_type, task.priority, ?2, task.id
FROM task
JOIN template ON template.key = task.template
WHERE task.owner = ?1;

DELETE FROM offer
WHERE task IN (SELECT id FROM task WHERE owner = ?1);

UPDATE offer
SET holder = NULL
WHERE holder = ?1;

UPDATE task
SET owner = NULL,
    version = version + 1,
    route = NULL,
    wake_at = ?2
WHERE owner = ?1;

DELETE FROM news
WHERE worker = ?1;

DELETE FROM worker
WHERE id = ?1;

INSERT INTO former_worker (id, gone_at)
VALUES (?1, ?2)
ON CONFLICT (id) DO NOTHING
