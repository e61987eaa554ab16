//! The contract of [`StateStore`], clause by clause, for every store.
//!
//! A store's tests are one line: [`store_conformance!`](crate::store_conformance) makes a test of
//! each case. Nothing here pauses time, so a store on a real database passes as it is; leases that
//! have to run out are short, and whatever takes time is looked at until it has happened.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A case fails by panicking.

mod claim;
mod commit;
mod create;
mod documents;
mod drops;
mod fixture;
mod incidents;
mod lease;
mod offer;
mod priority;
mod reads;
mod rows;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::store::StateStore;

/// An empty store, by two handles.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use tasker_core::MemoryStore;
/// use tasker_core::testing::conformance::Handles;
///
/// let store = MemoryStore::new();
/// let handles = Handles::new(store.clone(), store);
/// # }
/// ```
pub struct Handles {
    /// One handle.
    pub here: Arc<dyn StateStore>,
    /// Another one on the same data, as another process would have it.
    pub there: Arc<dyn StateStore>,
    guards: Vec<Box<dyn Any>>,
}

impl Handles {
    /// Two handles on the same data, which is empty: the second one opened as another process
    /// would, where the store can be shared by processes.
    pub fn new(here: impl StateStore, there: impl StateStore) -> Self {
        Self { here: Arc::new(here), there: Arc::new(there), guards: Vec::new() }
    }

    /// Keeps something for as long as the case runs, such as a temporary directory.
    #[must_use]
    pub fn keeping(mut self, guard: impl Any) -> Self {
        self.guards.push(Box::new(guard));
        self
    }
}

impl fmt::Debug for Handles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handles").finish_non_exhaustive()
    }
}

/// One proof that a store keeps a clause of its contract.
#[derive(Clone, Copy)]
pub struct Case {
    /// What it claims, as the name of a test.
    pub name: &'static str,
    /// The clause.
    pub clause: &'static str,
    run: fn(Handles) -> Pin<Box<dyn Future<Output = ()>>>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.clause)
    }
}

/// A case that has not ended by then has lost something that it waits for.
const LIMIT: Duration = Duration::from_secs(120);

/// All cases.
pub const fn cases() -> &'static [Case] {
    CASES
}

/// Runs one case, by its name, against a store that `fresh` makes.
///
/// On a runtime of its own with two threads, so not from within one.
///
/// # Panics
/// The store does not keep the clause, or there is no such case.
pub fn run<F: Future<Output = Handles>>(name: &str, fresh: impl FnOnce() -> F) {
    let case = cases().iter().find(|case| case.name == name).expect("there is no such case");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime for the case");
    let kept = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let handles = fresh().await;
            let run = tokio::time::timeout(LIMIT, (case.run)(handles));
            run.await.expect("the case does not come to an end");
        });
    }));
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Err(panic) = kept {
        eprintln!(
            "{name}: the store does not keep this clause of its contract:\n  {}",
            case.clause
        );
        resume_unwind(panic);
    }
}

/// Makes a test of each case of the contract, against the stores that an async function makes.
///
/// ```
/// use tasker_core::MemoryStore;
/// use tasker_core::testing::conformance::Handles;
///
/// async fn fresh() -> Handles {
///     let store = MemoryStore::new();
///     Handles::new(store.clone(), store)
/// }
///
/// tasker_core::store_conformance!(fresh);
/// ```
#[macro_export]
macro_rules! store_conformance {
    (@list $($then:tt)*) => { $crate::store_conformance! { @$($then)*
        create {
            answers_in_order: "Stores new tasks, each wholly or not at all, and answers in their order.",
            stores_all_of_a_task: "Stores new tasks, each wholly or not at all, and answers in their order.",
            durable_tasks_are_seen_by_everybody: "When this returns the tasks are durable.",
            a_taken_key_names_the_task_that_has_it: "A task whose idempotency key is taken is not stored; `Created::Existing` names the one that is, whether or not its input was the same (the caller compares the digests).",
            a_key_counts_per_namespace_and_name: "Makes a second submission with the same key, for the same namespace and name of task, answer with the first task.",
            a_key_counts_within_one_call: "A task whose idempotency key is taken is not stored.",
            a_key_outlives_the_end_of_its_task: "A task whose idempotency key is taken is not stored.",
            of_a_hundred_at_once_one_is_stored: "A task whose idempotency key is taken is not stored.",
            a_claimant_owns_at_once: "With a `claimant`, whose lease must be alive, the new tasks are its own at once, as if it had claimed them in the same transaction.",
            a_lost_claimant_owns_nothing: "If the lease is gone they are stored all the same and `Created::New` says that they are not claimed.",
            a_claimant_does_not_get_another_ones_task: "A task whose idempotency key is taken is not stored.",
            a_delayed_task_waits: "How long from now until it may be claimed; zero for at once.",
            a_delay_may_be_too_long_for_any_clock: "How long from now until it may be claimed.",
            nothing_is_created_from_nothing: "Stores new tasks, each wholly or not at all, and answers in their order.",
        }
        claim {
            two_callers_never_get_the_same: "Two callers never get the same task or offer, and nobody waits for another's locks.",
            tasks_come_in_the_order_of_their_time: "What is due comes in the order of its rank; tasks of one priority have the order of their times.",
            a_flood_on_one_route_leaves_room_for_others: "What is due comes in the order of its rank, fairly over the routes: each route has a turn before one has two.",
            a_busy_route_starves_nobody: "What is due comes in the order of its rank, fairly over the routes: each route has a turn before one has two.",
            nothing_is_handed_out_early: "How long from now until it may be claimed.",
            only_served_routes_are_handed_out: "The routes that it serves.",
            a_claimed_task_is_the_workers: "Their version is one higher than before, their state is `in_progress`.",
            a_claimed_task_brings_its_whole_history: "They bring their context and whole history, so nothing else needs to be read.",
            capacity_is_respected: "How many tasks it can take.",
            next_in_tells_when_to_come_again: "How long until the next queued task on its routes may be claimed; `None` if there is none. Zero if the claim took all that it asked for and there is more.",
            a_lost_lease_gets_nothing: "If the lease is gone the answer is `Claimed::LeaseLost` and nothing happened.",
            news_is_handed_out_once: "News is handed out once.",
            what_a_lost_answer_handed_out_is_recovered: "After a call whose answer was lost: the tasks that the worker holds. Whatever else stands in its name is handed out again.",
            offers_of_a_lost_answer_are_recovered: "Whatever else stands in its name is handed out again.",
            a_compensating_task_stays_so: "Their state is `in_progress` (one that is `compensating` stays so).",
            a_queued_task_tells_its_route: "While it is queued: who may claim it.",
        }
        priority {
            urgent_tasks_come_first: "What is due comes in the order of its rank: a task of high priority goes before normal ones that became due up to ten minutes before it.",
            a_priority_hands_nothing_out_early: "Nothing is handed out before its `wake_at`.",
            priorities_leave_each_route_its_turn: "Fairly over the routes: each route has a turn before one has two.",
            what_is_left_of_any_priority_is_told: "How long until the next queued task on its routes may be claimed. Zero if the claim took all that it asked for and there is more.",
            a_claimed_task_keeps_its_priority: "How urgent it is, for as long as it is stored.",
            a_priority_survives_a_release: "How urgent it is, whatever becomes of it.",
            a_priority_survives_a_take_over: "How urgent it is, whatever becomes of it.",
            a_repeated_submission_leaves_the_priority: "A task whose idempotency key is taken is not stored.",
        }
        commit {
            one_conflict_leaves_the_others: "A change whose assumption is false is left out whole and answered with `Applied::Conflict`; the others stand.",
            changes_are_answered_in_order: "Each change was applied or left out, in the order in which they were given.",
            a_wrong_version_conflicts: "The author owns the task at this version.",
            only_the_owner_changes: "The author owns the task at this version.",
            a_row_exists_once: "A change one of whose rows exists already is left out whole and answered with `Applied::Conflict`.",
            of_two_equal_rows_in_a_batch_one_stands: "Rows to add; each must be new.",
            racing_commits_add_a_row_once: "Rows to add; each must be new.",
            a_lost_lease_applies_nothing: "If the author is a worker whose lease is gone, nothing is applied at all.",
            keep_leaves_the_version: "All but `Keep` make the version one higher.",
            queue_releases: "All but `Keep` make the version one higher, take the task from its owner and withdraw its offers.",
            queue_waits_and_routes: "It is queued and may be claimed after a while.",
            a_held_task_waits_for_a_person: "It waits for a person: it is in no queue and has not ended.",
            a_task_is_degraded_as_soon_as_it_is_said: "Whether the task goes on, or has ended, without something that was asked of it. `None`: as before.",
            end_leaves_the_queue: "It has ended: it is in no queue any more.",
            an_operator_takes_a_task_from_its_owner: "Take the task from its owner (who is told by `News::Revoked` unless it is the author).",
            an_operator_assumes_that_nothing_moved: "Nobody has claimed, released, finished or operated on the task since it was read.",
            an_operator_ends_and_requeues: "All but `Keep` make the version one higher.",
            an_unknown_task_conflicts: "A change whose assumption is false is left out whole and answered with `Applied::Conflict`.",
            what_was_applied_is_seen_by_everybody: "When this returns, what was applied is durable.",
            nothing_committed_is_nothing_applied: "Each change was applied or left out, in the order in which they were given.",
            a_large_batch_is_one_commit: "Applies changes in one transaction, each only if what it assumed is true.",
        }
        offer {
            an_offer_is_claimed_once: "Two callers never get the same task or offer.",
            an_offer_brings_what_its_step_needs: "The task, with its own rows and those of the needed steps and of the step itself only.",
            an_offer_goes_to_those_who_serve_its_route: "Who may run it.",
            a_settled_offer_tells_the_owner: "Another worker settled a step that was offered.",
            an_offer_is_settled_once: "The author holds the offer of this step for this row.",
            only_the_holder_settles: "The author holds the offer of this step for this row.",
            an_offer_that_stands_keeps_its_holder: "An offer that stands already stays as it is, \
                with its holder.",
            a_row_that_exists_is_not_offered: "One of whose rows (or the row that one of its \
                offers is for) exists already, is left out whole.",
            a_change_may_assume_that_a_row_does_not_exist: "Where the change lets the task go they \
                are withdrawn at once, and say no more than that none of the rows that they are \
                for may exist.",
            an_offer_is_of_one_row: "The author holds the offer of this step for this row.",
            a_released_task_withdraws_its_offers: "All but `Keep` withdraw its offers.",
            an_ended_task_withdraws_its_offers: "All but `Keep` withdraw its offers.",
            a_helper_that_lost_its_lease_is_refused: "If the author is a worker whose lease is gone, nothing is applied at all.",
            the_owner_may_settle_what_it_offered: "Rows to add; each must be new.",
        }
        lease {
            a_worker_registers_and_renews: "Registers a worker or renews its lease, or retires it.",
            a_late_worker_may_renew: "A worker whose lease ran out but that nobody has taken over yet may renew.",
            a_name_that_is_gone_never_comes_back: "An id whose worker was taken over or retired is never accepted again: `Renewed::LeaseLost`.",
            others_spare_sums_the_living: "How many more steps the other living workers could run at once, as they last said.",
            the_next_expiry_is_anothers: "How long until the first lease of another worker runs out: zero if one has run out and nobody has taken that worker over yet, `None` if there is no other worker.",
            running_steps_may_be_told: "The steps that it has been running for long, for people.",
            a_retired_worker_leaves_its_tasks: "`None` retires the worker, which must own nothing any more.",
            a_dead_workers_tasks_are_queued_at_once: "The worker is gone for good, a `WorkerLost` row is added to the log of every task that it owned, those tasks are queued to run at once.",
            each_loss_is_on_record: "A `WorkerLost` row is added to the log of every task that it owned.",
            a_take_over_withdraws_offers: "All but `Keep` make the version one higher, take the task from its owner and withdraw its offers.",
            offers_of_a_dead_helper_come_back: "The offers that it held can be claimed again.",
            at_most_so_many_are_taken_over: "Takes over workers whose lease ran out, at most `limit` of them.",
            the_living_are_left_alone: "Takes over workers whose lease ran out.",
            each_worker_is_taken_over_once: "Each is one atomic act: the worker is gone for good. Returns the workers that were taken over.",
        }
        reads {
            load_of_nothing_is_none: "One task with its whole history, as one consistent snapshot; `None` if there is none.",
            load_tells_the_lease_of_the_owner: "Until when its owner's lease runs, as `load` tells it.",
            load_is_consistent: "One task with its whole history, as one consistent snapshot.",
            find_is_newest_first_and_pages: "Tasks by type and state, newest first, a page at a time.",
            find_filters: "Tasks by type and state.",
            find_knows_what_is_degraded: "Only tasks that are degraded, or only those that are not.",
            find_knows_every_state: "Only tasks in this state.",
            find_limits_its_pages: "At most this many; 0 means 100, and no page is longer than 1,000.",
            times_do_not_run_backwards: "When it was recorded, by the store's clock.",
            waiting_ends_by_itself: "Returns as soon as a claim may find something, and after `max` in any case.",
            waiting_ends_when_work_arrives: "Returns as soon as a claim may find something.",
        }
        documents {
            a_document_is_written_as_it_was_read: "Writes documents in one transaction, each only if its version is the one that was read.",
            a_document_is_deleted_as_it_was_read: "What it becomes; `None` deletes it.",
            changes_of_one_document_see_each_other: "Two changes of one document in one call are applied one after the other.",
            a_conflict_leaves_other_documents: "One for each change, in their order.",
            racing_writers_lose_nothing: "Each only if its version is the one that was read.",
            a_document_comes_back_as_it_was_written: "When this returns, what was applied is durable.",
            what_is_due_comes_longest_due_first: "Those that somebody should look at now, of every collection, the longest due first.",
            documents_are_listed_newest_first: "A page of a collection, newest first.",
            pages_of_documents_are_limited: "At most this many; 0 means 100, and no page is longer than 1,000.",
        }
        incidents {
            an_escalation_is_written_with_its_change: "The documents of a change that is applied are written with it.",
            a_notice_is_written_with_its_change: "The documents of a change that is applied are written with it; those that exist stay as they are.",
            a_conflict_raises_nothing: "The documents of a change that is applied are written with it.",
            an_escalation_that_stands_stays_as_it_is: "Those that exist stay as they are.",
            an_alarm_is_written_with_its_task: "The alarm of a task is written with it.",
            a_repeated_submission_has_no_alarm: "The alarm of a task is written with it; a task whose idempotency key is taken is not stored.",
            a_sign_of_life_tells_of_documents: "The sum of the versions of the documents about systems. How long until somebody should look at a document: zero if one is due, `None` if there is none that ever will be.",
        }
        rows {
            every_occurrence_comes_back: "Its history, each log in the order of its numbers.",
            awkward_json_comes_back: "Contexts and results come back as they were stored.",
            large_json_comes_back: "Contexts and results come back as they were stored.",
            awkward_names_come_back: "Who recorded it; why.",
            long_logs_come_back_in_order: "Its history, each log in the order of its numbers.",
            a_template_comes_back: "What it is made of; kept by the store once per fingerprint.",
        }
        drops {
            a_dropped_create_happens_wholly_or_not_at_all: "May be dropped at any await: it then has happened wholly or not at all, and a transaction is never left open.",
            a_dropped_claim_is_recovered: "May be dropped at any await: it then has happened wholly or not at all, and a transaction is never left open.",
            a_dropped_commit_happens_wholly_or_not_at_all: "May be dropped at any await: it then has happened wholly or not at all, and a transaction is never left open.",
            a_dropped_write_happens_wholly_or_not_at_all: "May be dropped at any await: it then has happened wholly or not at all, and a transaction is never left open.",
            a_dropped_wait_leaves_no_trace: "May be dropped at any await.",
        }
    } };
    (@cases $($module:ident { $($name:ident: $clause:literal,)* })*) => {
        &[$($(Case {
            name: stringify!($name),
            clause: $clause,
            run: |handles| Box::pin($module::$name(handles)),
        },)*)*]
    };
    (@tests $fresh:path; $($module:ident { $($name:ident: $clause:literal,)* })*) => {
        $(mod $module {
            use super::*;
            $(#[test]
            fn $name() {
                $crate::testing::conformance::run(stringify!($name), $fresh);
            })*
        })*
    };
    ($fresh:path) => { $crate::store_conformance! { @list tests $fresh; } };
}

const CASES: &[Case] = crate::store_conformance! { @list cases };
