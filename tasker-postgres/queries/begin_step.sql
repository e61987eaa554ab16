-- Opens the transaction of a step; {marker} shows later that it is still the same one.
--
-- A handler may think for {idle} milliseconds between two statements; if its process hangs for
-- longer, others get its locks. If its process dies in a statement the server notices, except on
-- Windows, where it cannot.
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL lock_timeout = '2s';
SET LOCAL idle_in_transaction_session_timeout = {idle};
SET LOCAL tasker.step = '{marker}';
SELECT set_config('client_connection_check_interval', '500', true)
WHERE version() !~* 'windows|visual c|mingw'
