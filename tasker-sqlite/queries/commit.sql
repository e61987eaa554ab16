-- Makes the transaction durable.
-- No parameters.
COMMIT
