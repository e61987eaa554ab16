-- Leaves news for workers.
-- Parallel arrays: $1 worker, $2 task, $3 step, $4 seq
INSERT INTO {schema}.news (worker, task, step, seq)
SELECT worker, task, step, seq
FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[])
    WITH ORDINALITY AS told (worker, task, step, seq, nr)
ORDER BY nr
