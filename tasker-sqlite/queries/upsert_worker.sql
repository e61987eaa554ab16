-- Registers a worker or renews its lease.
-- ?1 id, ?2 name, ?3 expires_at, ?4 spare, ?5 running
INSERT INTO worker (id, name, expires_at, spare, running)
VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (id) DO UPDATE
SET name = excluded.name,
    expires_at = excluded.expires_at,
    spare = excluded.spare,
    running = excluded.running
