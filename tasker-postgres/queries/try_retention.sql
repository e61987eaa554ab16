-- Whether no other process deletes what has ended, until the end of the transaction.
-- $1 what it is called
SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))
