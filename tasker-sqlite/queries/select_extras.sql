-- Whether there is any offer, and any news, at all.
-- No parameters.
SELECT
    EXISTS (SELECT 1 FROM offer),
    EXISTS (SELECT 1 FROM news)
