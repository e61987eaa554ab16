-- Workers whose lease ran out, the longest gone first.
-- ?1 now, ?2 how many
SELECT id
FROM worker
WHERE expires_at <= ?1
ORDER BY expires_at
LIMIT ?2
