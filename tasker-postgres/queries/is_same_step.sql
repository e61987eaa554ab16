-- Whether this is still the transaction of a step: the setting ends with it.
-- $1 its marker
SELECT coalesce(current_setting('tasker.step', true) = $1, false)
