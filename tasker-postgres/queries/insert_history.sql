-- Adds rows to the history.
-- Parallel arrays: $1 task, $2 step, $3 seq, $4 worker, $5 operator, $6 attempt, $7 ran_for,
-- $8 kind, $9 result, $10 detail; $11 when it happened
INSERT INTO {schema}.history (
    task, step, seq, at, worker, operator, attempt, ran_for, kind, result, detail
)
SELECT task, step, seq, $11, worker, operator, attempt, ran_for, kind, result, detail
FROM unnest(
    $1::uuid[], $2::int[], $3::int[], $4::uuid[], $5::text[], $6::int[], $7::bigint[], $8::text[],
    $9::text[], $10::text[]
) AS line (task, step, seq, worker, operator, attempt, ran_for, kind, result, detail)
