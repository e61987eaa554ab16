-- Opens a transaction of several statements; if its client dies in it, others wait no longer.
BEGIN;
SET LOCAL lock_timeout = '2s';
SET LOCAL idle_in_transaction_session_timeout = '5s'
