-- Whether a worker lives, and whether it is known to be gone.
-- ?1 worker
SELECT
    EXISTS (SELECT 1 FROM worker WHERE id = ?1),
    EXISTS (SELECT 1 FROM former_worker WHERE id = ?1)
