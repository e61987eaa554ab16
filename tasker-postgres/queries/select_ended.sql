-- Tasks that ended long ago, in the order of their ids; and the last id that was looked at, from
-- which the next look goes on.
--
-- Ids are UUIDs of version 7: they begin with the time of submission, which is before that of the
-- end. So a walk along the primary key up to the id of the time in question meets all of them. An
-- index by the end would serve as well, and cost every end of a task another entry.
--
-- $1 behind which id, $2 for how long it has ended, in microseconds, $3 states, $4 how many to look
-- at, $5 how many to bring
WITH seen AS MATERIALIZED (
    SELECT
        task.id,
        task.state = ANY ($3::text[])
            AND task.ended_at < now() - $2::bigint * interval '1 microsecond' AS is_due
    FROM {schema}.task
    WHERE task.id > $1
        AND task.id < rpad(
            lpad(
                to_hex(
                    greatest(
                        extract(epoch FROM now() - $2::bigint * interval '1 microsecond') * 1000,
                        0
                    )::bigint
                ),
                12,
                '0'
            ),
            32,
            '0'
        )::uuid
    ORDER BY task.id
    LIMIT $4::int
)
SELECT
    (SELECT seen.id FROM seen ORDER BY seen.id DESC LIMIT 1),
    ARRAY (SELECT seen.id FROM seen WHERE seen.is_due ORDER BY seen.id LIMIT $5::int)
