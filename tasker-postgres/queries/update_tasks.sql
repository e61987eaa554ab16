-- Moves tasks.
-- Parallel arrays: $1 id, $2 state, $3 degraded, $4 version, $5 owner, $6 route, $7 wake_at,
-- $8 ended_at
UPDATE {schema}.task
SET state = change.state,
    degraded = change.degraded,
    version = change.version,
    owner = change.owner,
    route = change.route,
    wake_at = change.wake_at,
    ended_at = change.ended_at
FROM unnest(
    $1::uuid[], $2::text[], $3::boolean[], $4::bigint[], $5::uuid[], $6::text[],
    $7::timestamptz[], $8::timestamptz[]
) AS change (id, state, degraded, version, owner, route, wake_at, ended_at)
WHERE task.id = ANY ($1) AND task.id = change.id
