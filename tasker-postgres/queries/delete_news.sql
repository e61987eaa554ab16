-- Hands out what others did to a worker's tasks, with the rows that they added.
-- $1 worker
WITH heard AS (
    DELETE FROM {schema}.news
    WHERE news.worker = $1
    RETURNING news.key, news.task, news.step, news.seq
)
SELECT
    heard.task,
    history.task, history.step, history.seq, history.at, history.worker, history.operator,
    history.attempt, history.ran_for, history.kind, history.result, history.detail
FROM heard
LEFT JOIN LATERAL (
    SELECT *
    FROM {schema}.history
    WHERE history.task = heard.task AND history.step = heard.step AND history.seq = heard.seq
    OFFSET 0
) AS history ON true
ORDER BY heard.key
