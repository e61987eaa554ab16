-- Which of some rows of history exist.
-- Parallel arrays: $1 task, $2 step, $3 seq
SELECT history.task, history.step, history.seq
FROM unnest($1::uuid[], $2::int[], $3::int[]) AS asked (task, step, seq)
JOIN {schema}.history USING (task, step, seq)
