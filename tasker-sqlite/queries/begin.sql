-- Opens a transaction that may write, and tells whether anybody else has written since.
-- No parameters.
BEGIN IMMEDIATE;
PRAGMA data_version
