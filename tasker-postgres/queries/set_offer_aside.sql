-- Gives an offer back, for later, that a worker holds and cannot read.
-- $1 task, $2 step, $3 worker, $4 for how long, in microseconds
UPDATE {schema}.offer
SET holder = NULL,
    offered_at = now() + $4::bigint * interval '1 microsecond'
WHERE task = $1 AND step = $2 AND holder = $3
