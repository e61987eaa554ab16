-- Which of some rows of history exist.
-- Parallel arrays: $1 task, $2 step, $3 seq
SELECT asked.task, asked.step, asked.seq
FROM unnest($1::uuid[], $2::int[], $3::int[]) AS asked (task, step, seq)
CROSS JOIN LATERAL (
    SELECT
    FROM {schema}.history
    WHERE history.task = asked.task AND history.step = asked.step AND history.seq = asked.seq
    OFFSET 0
) AS present
