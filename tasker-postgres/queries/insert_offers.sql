-- Offers steps; an older offer of the same step is replaced. The steps that each needs are the
-- pairs ($5, $6) with its number.
-- Parallel arrays: $1 task, $2 step, $3 seq, $4 route; $5 which offer, $6 step
INSERT INTO {schema}.offer (task, step, seq, route, needs, offered_at)
SELECT
    made.task,
    made.step,
    made.seq,
    made.route,
    ARRAY (
        SELECT needed.step
        FROM unnest($5::bigint[], $6::int[]) AS needed (nr, step)
        WHERE needed.nr = made.nr
    ),
    now()
FROM unnest($1::uuid[], $2::int[], $3::int[], $4::text[])
    WITH ORDINALITY AS made (task, step, seq, route, nr)
ON CONFLICT (task, step) DO UPDATE
SET seq = excluded.seq,
    route = excluded.route,
    needs = excluded.needs,
    offered_at = excluded.offered_at,
    holder = NULL
