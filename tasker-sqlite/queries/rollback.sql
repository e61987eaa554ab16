-- Undoes the transaction.
-- No parameters.
ROLLBACK
