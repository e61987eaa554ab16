-- Notifies all workers as soon as the transaction commits; several times are one time. Not only if
-- somebody waits now: whoever begins to wait before the commit has not seen what it brings.
-- $1 channel, $2 what
SELECT pg_notify($1, $2)
