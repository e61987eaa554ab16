-- Forgets workers that have been gone for long.
-- ?1 the time before which they went
DELETE FROM former_worker
WHERE gone_at < ?1
