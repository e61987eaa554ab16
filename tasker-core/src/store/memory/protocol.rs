//! The protocol of owning, settling, offering and taking over, checked in every order of events.
//!
//! Two workers, an operator and a diamond on the very [`State`](super::state::State) and `decide`
//! that run in production. A guard that is turned off must break a promise: if it does not, either
//! the guard or the check is worth nothing.

#![allow(clippy::unwrap_used)]

mod explore;
mod moves;
mod promises;
mod system;
mod worker;

#[cfg(test)]
mod tests {
    use super::explore::{Violation, explore};
    use super::system::{Faults, System};
    use crate::store::memory::state::Guards;

    const NONE: Faults = Faults {
        crashes: 0,
        stalls: 0,
        lost_answers: 0,
        failures: 0,
        offers: 0,
        recordings: 0,
        cancels: 0,
        retries: 0,
    };

    fn check(faults: Faults) {
        match explore(System::new(faults)) {
            Ok(states) => println!("{states} states: {faults:?}"),
            Err(Violation { promise, trace }) => panic!("{promise}: {trace}"),
        }
    }

    /// The promise that is broken without one of the guards.
    fn broken_without(turn_off: impl FnOnce(&mut Guards), faults: Faults) -> String {
        let mut system = System::new(faults);
        turn_off(&mut system.store.guards);
        let Violation { promise, trace } = explore(system).unwrap_err();
        println!("{promise}: {trace}");
        promise
    }

    #[test]
    fn crashes_cost_nothing_but_time() {
        check(Faults { crashes: 2, failures: 1, ..NONE });
    }

    #[test]
    fn a_worker_that_stalls_and_comes_back_changes_nothing() {
        check(Faults { stalls: 2, ..NONE });
        check(Faults { stalls: 1, failures: 2, retries: 1, ..NONE });
    }

    #[test]
    fn offered_steps_are_settled_once_whoever_is_lost() {
        check(Faults { offers: 2, ..NONE });
        check(Faults { offers: 2, crashes: 1, ..NONE });
        check(Faults { offers: 1, stalls: 1, ..NONE });
    }

    #[test]
    fn lost_answers_lose_nothing() {
        check(Faults { lost_answers: 2, ..NONE });
        check(Faults { lost_answers: 1, offers: 2, ..NONE });
    }

    #[test]
    fn what_handlers_record_themselves_counts_once() {
        check(Faults { recordings: 3, ..NONE });
        check(Faults { recordings: 2, failures: 1, ..NONE });
        check(Faults { recordings: 1, stalls: 1, ..NONE });
        check(Faults { recordings: 1, crashes: 1, ..NONE });
        check(Faults { recordings: 1, lost_answers: 1, ..NONE });
        check(Faults { recordings: 2, offers: 1, ..NONE });
        check(Faults { recordings: 1, cancels: 1, ..NONE });
    }

    #[test]
    fn without_the_fence_a_lost_workers_handler_records_what_it_no_longer_holds() {
        let faults = Faults { stalls: 1, recordings: 1, ..NONE };
        let promise = broken_without(|guards| guards.fence = false, faults);
        assert_eq!(promise, "an outcome is recorded by nobody but who holds the task or the offer");
    }

    #[test]
    fn an_operator_and_the_workers_do_not_overwrite_each_other() {
        check(Faults { cancels: 1, retries: 1, failures: 2, ..NONE });
        check(Faults { cancels: 1, offers: 1, ..NONE });
    }

    #[test]
    fn without_the_fence_a_lost_worker_writes_to_what_it_no_longer_holds() {
        let promise = broken_without(|guards| guards.fence = false, Faults { stalls: 1, ..NONE });
        assert_eq!(promise, "an outcome is recorded by nobody but who holds the task or the offer");
    }

    #[test]
    fn without_the_version_an_owner_writes_to_a_cancelled_task() {
        let promise =
            broken_without(|guards| guards.version = false, Faults { cancels: 1, ..NONE });
        assert_eq!(promise, "an outcome is recorded by nobody but who holds the task or the offer");
    }

    #[test]
    fn without_unique_rows_a_commit_that_is_sent_again_counts_twice() {
        let faults = Faults { lost_answers: 1, ..NONE };
        let promise = broken_without(|guards| guards.unique = false, faults);
        assert_eq!(promise, "an outcome is recorded once");
    }
}
