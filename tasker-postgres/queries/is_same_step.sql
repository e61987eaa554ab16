-- Whether this is still the transaction of a step: the setting ends with it. What is recorded next
-- is planned as in the store's own sessions, and locks the worker: if the client dies before the
-- commit, others wait no longer than for any of the store's transactions.
-- $1 its marker
SELECT
    coalesce(current_setting('tasker.step', true) = $1, false),
    set_config('plan_cache_mode', 'force_generic_plan', true),
    set_config('enable_seqscan', 'off', true),
    set_config('jit', 'off', true),
    set_config('idle_in_transaction_session_timeout', '5s', true)
