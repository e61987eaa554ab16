-- On which of some routes there are offers that may be taken.
-- ?1 the routes, a JSON array
SELECT served.value
FROM json_each(?1) AS served
WHERE EXISTS (
    SELECT 1
    FROM offer
    WHERE offer.route = served.value
      AND offer.holder IS NULL
)
