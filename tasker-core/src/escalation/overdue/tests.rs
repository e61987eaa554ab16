#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::escalation::keys_of;
use crate::history::{
    AfterFailure, Author, Failure, FailureClass, Occurrence, Recorded, Transition,
};
use crate::{Priority, StepTemplate, TaskTemplate, WorkerId};

const MINUTE: Duration = Duration::from_secs(60);

fn minutes(count: u32) -> Duration {
    MINUTE * count
}

fn at(minute: u32) -> Timestamp {
    later(Timestamp::UNIX_EPOCH, minutes(minute))
}

/// `first`, at most 10 minutes, then `second`, at most 5; both within an hour.
fn task(now: u32, state: TaskState, rows: Vec<Recorded>) -> StoredTask {
    let template = TaskTemplate::builder("task")
        .deadline(minutes(60))
        .step(StepTemplate::new("first").expected_within(minutes(10)))
        .step(StepTemplate::new("second").after("first").expected_within(minutes(5)))
        .build()
        .unwrap();
    StoredTask {
        id: TaskId::new(),
        template: Arc::new(template),
        context: Json::null(),
        priority: Priority::Normal,
        state,
        degraded: false,
        version: 1,
        owner: None,
        lease_until: None,
        created_at: at(0),
        ended_at: None,
        wake_at: None,
        route: None,
        now: at(now),
        rows,
    }
}

fn row(minute: u32, step: u32, seq: u32, attempt: u32, what: Occurrence) -> Recorded {
    let (step, ran_for) = (Some(StepIndex(step)), Duration::ZERO);
    let transition = Transition { step, seq, attempt, ran_for, what };
    Recorded { at: at(minute), author: Author::Worker(WorkerId::new()), transition }
}

fn completed(minute: u32, step: u32, seq: u32, attempt: u32) -> Recorded {
    row(minute, step, seq, attempt, Occurrence::Completed { result: Json::null() })
}

fn failed(minute: u32, seq: u32, next: AfterFailure) -> Recorded {
    let class = FailureClass::Retryable;
    let failure = Failure { class, code: "BUSY".to_owned(), message: "busy".to_owned() };
    row(minute, 0, seq, seq, Occurrence::Failed { failure, next })
}

/// The kinds of what is overdue, and in how many minutes to look again.
fn found(task: &StoredTask, delay: u32) -> (Vec<String>, Option<u64>) {
    let Overdue { raise, next_check } = overdue(task, Alarm { delay: minutes(delay) });
    let key = |key: String| key.split_once('/').map(|(_, rest)| rest.to_owned()).unwrap();
    let keys = raise.into_iter().map(|(raised, _)| key(raised)).collect();
    (keys, next_check.map(|wait| wait.as_secs() / 60))
}

#[test]
fn steps_and_tasks_are_overdue_when_their_time_is_over() {
    use TaskState::{Cancelled, Compensating, Error, InProgress, Paused};
    let retry = AfterFailure::RetryIn(minutes(1));
    let done = || vec![completed(4, 0, 1, 1)];
    let cases: [(&str, StoredTask, &[&str], Option<u64>); 11] = [
        // `second` may become ready at any moment, and would be overdue five minutes later.
        ("fresh", task(0, InProgress, vec![]), &[], Some(5)),
        ("the first takes long", task(9, InProgress, vec![]), &[], Some(1)),
        ("too long", task(10, InProgress, vec![]), &["0/overdue/0"], Some(5)),
        (
            "a retry is no excuse",
            task(10, InProgress, vec![failed(9, 1, retry)]),
            &["0/overdue/0"],
            Some(5),
        ),
        ("the second is ready", task(5, InProgress, done()), &[], Some(4)),
        ("the second too", task(9, InProgress, done()), &["1/overdue/0"], Some(51)),
        ("nothing more to come", task(60, InProgress, done()), &["deadline", "1/overdue/0"], None),
        ("a pause is no excuse", task(61, Paused, done()), &["deadline", "1/overdue/0"], None),
        ("steps that are undone", task(9, Compensating, done()), &[], Some(51)),
        ("ended", task(90, Cancelled, vec![]), &[], None),
        ("failed", task(90, Error, vec![failed(9, 1, AfterFailure::GiveUp)]), &[], None),
    ];
    for (what, task, keys, next) in cases {
        let (raised, next_check) = found(&task, 0);
        assert_eq!(raised, keys, "{what}");
        assert_eq!(next_check, next, "{what}");
    }
}

#[test]
fn a_delay_is_no_time_of_the_task() {
    assert_eq!(found(&task(20, TaskState::Pending, vec![]), 20), (vec![], Some(5)));
    let (raised, _) = found(&task(30, TaskState::Pending, vec![]), 20);
    assert_eq!(raised, ["0/overdue/0"]);
}

#[test]
fn a_step_that_somebody_acted_on_has_its_time_again() {
    let rows = || {
        let reopened = row(30, 0, 2, 0, Occurrence::Reopened);
        vec![failed(9, 1, AfterFailure::GiveUp), reopened]
    };
    assert_eq!(found(&task(39, TaskState::InProgress, rows()), 0), (vec![], Some(1)));
    let late = task(40, TaskState::InProgress, rows());
    assert_eq!(found(&late, 0).0, ["0/overdue/1"]);
    let id = late.id;
    let known = ["0/1", "deadline", "0/overdue/0", "0/overdue/1", "1/overdue/0"];
    assert_eq!(keys_of(&late), known.map(|key| format!("{id}/{key}")));
}
