-- Withdraws offers.
-- Parallel arrays: $1 task, $2 step
DELETE FROM {schema}.offer
USING unnest($1::uuid[], $2::int[]) AS gone (task, step)
WHERE offer.task = ANY ($1) AND offer.task = gone.task AND offer.step = gone.step
