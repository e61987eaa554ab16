//! What an operator's action leaves to be undone, where steps had begun that left no row.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use tasker_core::decide::{self, Order};
use tasker_core::history::{
    AfterFailure, Author, Failure, FailureClass, Occurrence, Recorded, Transition,
};
use tasker_core::snapshot::Snapshot;
use tasker_core::store::{StoredTask, TaskChange, Then};
use tasker_core::{
    Action, Json, OnFailure, Priority, StepIndex, StepState, StepTemplate, TaskId, TaskState,
    TaskTemplate, Timestamp,
};

const FIRST: StepIndex = StepIndex(0);
const SECOND: StepIndex = StepIndex(1);

/// `first`, then `second`, which says how it is undone, and `other`.
fn task(on_failure: OnFailure) -> StoredTask {
    let template = TaskTemplate::builder("task")
        .step(StepTemplate::new("first").on_failure(on_failure))
        .step(StepTemplate::new("second").after("first").compensate_with("undo"))
        .step(StepTemplate::new("other"));
    StoredTask {
        id: TaskId::new(),
        template: Arc::new(template.build().unwrap()),
        context: Json::null(),
        priority: Priority::Normal,
        state: TaskState::InProgress,
        degraded: false,
        version: 1,
        owner: None,
        lease_until: None,
        created_at: Timestamp::UNIX_EPOCH,
        ended_at: None,
        wake_at: None,
        route: None,
        now: Timestamp::UNIX_EPOCH,
        rows: Vec::new(),
    }
}

fn failed(step: StepIndex) -> Transition {
    let (code, message) = ("NO".to_owned(), "no".to_owned());
    let failure = Failure { class: FailureClass::Permanent, code, message };
    let what = Occurrence::Failed { failure, next: AfterFailure::GiveUp };
    Transition { step: Some(step), seq: 1, attempt: 1, ran_for: Duration::ZERO, what }
}

fn record(task: &mut StoredTask, rows: Vec<Transition>) {
    let author = || Author::Operator("alice".to_owned());
    let rows =
        rows.into_iter().map(|transition| Recorded { at: task.now, author: author(), transition });
    task.rows.extend(rows);
}

fn operate(task: &mut StoredTask, action: &Action) -> TaskChange {
    let mut snapshot = Snapshot::replay(task);
    let decided = decide::operate(&mut snapshot, action, &Order::because("why not"), task.now);
    let change = decided.unwrap().into_change().unwrap();
    record(task, change.rows.clone());
    task.state = snapshot.state();
    task.version += 1;
    change
}

/// How the second step stands once the task is compensated.
fn second_once_undone(task: &mut StoredTask) -> StepState {
    operate(task, &Action::Cancel);
    let undo = Action::Compensate;
    let mut snapshot = Snapshot::replay(task);
    let _ = decide::operate(&mut snapshot, &undo, &Order::because("it is wrong"), task.now);
    snapshot.step(SECOND).state()
}

fn step(name: &str) -> String {
    name.to_owned()
}

#[test]
fn a_step_is_skipped_as_not_begun_only_if_what_it_waits_for_has_not_ended_meanwhile() {
    let mut stored = task(OnFailure::Fail);
    let change = operate(&mut stored, &Action::SkipStep { step: step("second") });
    let assumed: Vec<_> = change.offers.iter().map(|offer| (offer.step, offer.seq)).collect();
    assert_eq!(assumed, [(FIRST, 1)], "`other` is of no concern");

    let mut stored = task(OnFailure::Fail);
    let change = operate(&mut stored, &Action::SkipStep { step: step("first") });
    assert!(change.offers.is_empty(), "it may have begun, whatever ends");
}

#[test]
fn a_cancelled_task_is_not_degraded_whatever_ended_meanwhile() {
    let mut stored = task(OnFailure::Continue);
    let change = operate(&mut stored, &Action::Cancel);
    assert_eq!(change.then, Then::End { state: TaskState::Cancelled });
    assert_eq!(change.degraded, Some(false), "whatever its owner says meanwhile");
    // Its owner was quicker, which the change does not rule out.
    record(&mut stored, vec![failed(FIRST)]);
    assert!(!Snapshot::replay(&stored).degraded(), "as is stored");
    operate(&mut stored, &Action::Compensate);
    assert!(Snapshot::replay(&stored).degraded());
}

#[test]
fn a_step_that_was_skipped_before_it_began_has_not_begun_once_it_is_to_run_again() {
    let mut stored = task(OnFailure::Fail);
    operate(&mut stored, &Action::SkipStep { step: step("second") });
    operate(&mut stored, &Action::RetryFrom { step: step("second") });
    assert_eq!(second_once_undone(&mut stored), StepState::Cancelled);
}

#[test]
fn a_step_that_was_cut_off_is_undone_though_it_waits_again() {
    let mut stored = task(OnFailure::Continue);
    record(&mut stored, vec![failed(FIRST)]);
    // The second runs.
    operate(&mut stored, &Action::Pause);
    operate(&mut stored, &Action::RetryStep { step: step("first") });
    assert_eq!(Snapshot::replay(&stored).step(SECOND).state(), StepState::Blocked);
    assert_eq!(second_once_undone(&mut stored), StepState::Compensating);
}
