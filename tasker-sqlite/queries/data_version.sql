-- A number that changes when another connection commits.
-- No parameters.
PRAGMA data_version
