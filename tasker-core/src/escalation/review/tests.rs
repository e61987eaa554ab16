#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::action::ActionKind;
use crate::history::{Aspect, Failure, FailureClass};
use crate::store::Collection;
use crate::{Json, Operator, Priority, StepTemplate, TaskId, TaskTemplate, WorkerId};

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(minute * 60).unwrap()
}

/// A task of two steps, and what happened to it minute by minute.
struct Story {
    task: StoredTask,
}

/// What was raised in minute 5.
fn raised(incident: &Incident, key: String) -> Document {
    let change = incident.raise(key);
    let put = change.put.unwrap();
    Document {
        collection: Collection::Escalation,
        key: change.key,
        version: 1,
        state: put.state,
        due_at: None,
        body: put.body,
        created_at: at(5),
        written_at: at(5),
    }
}

impl Story {
    fn new() -> Self {
        let step = |name| StepTemplate::new(name).expected_within(Duration::from_secs(60));
        let template = TaskTemplate::builder("task").deadline(Duration::from_secs(60));
        let template = template.step(step("first").compensate_with("undo")).step(step("second"));
        let task = StoredTask {
            id: TaskId::new(),
            template: Arc::new(template.build().unwrap()),
            context: Json::null(),
            priority: Priority::Normal,
            state: TaskState::InProgress,
            degraded: false,
            version: 1,
            owner: None,
            lease_until: None,
            created_at: at(0),
            ended_at: None,
            wake_at: None,
            route: None,
            now: at(100),
            rows: Vec::new(),
        };
        Self { task }
    }

    fn row(mut self, minute: i64, step: Option<u32>, author: Author, what: Occurrence) -> Self {
        let step = step.map(StepIndex);
        let own = self.task.rows.iter().filter(|row| row.transition.step == step);
        let (seq, attempt, ran_for) = (own.count() as u32 + 1, 0, Duration::ZERO);
        let transition = Transition { step, seq, attempt, ran_for, what };
        self.task.rows.push(Recorded { at: at(minute), author, transition });
        self
    }

    fn happens(self, minute: i64, step: u32, what: Occurrence) -> Self {
        self.row(minute, Some(step), Author::Worker(WorkerId::new()), what)
    }

    /// Ada acts on the task, and perhaps on a step.
    fn ada(
        self,
        minute: i64,
        to: TaskState,
        action: ActionKind,
        row: Option<(u32, Occurrence)>,
    ) -> Self {
        let ada = || Author::Operator("ada".to_owned());
        let (before, after) = (Aspect::of(self.task.state), Aspect::of(to));
        let (key, step, ended_at, reason) = (None, None, None, action.to_string());
        let operation = Operation { action, step, reason, key, ended_at, before, after };
        let mut story = self.row(minute, None, ada(), Occurrence::Operated(Box::new(operation)));
        story.task.state = to;
        match row {
            Some((step, what)) => story.row(minute, Some(step), ada(), what),
            None => story,
        }
    }

    fn is(mut self, state: TaskState) -> Self {
        self.task.state = state;
        self
    }

    /// Who resolves what was raised in minute 5, and why.
    fn answer(&self, key: &str, incident: &Incident) -> Option<(String, String)> {
        let document = raised(incident, format!("{}/{key}", self.task.id));
        answer(&document, incident, &self.task, &Snapshot::replay(&self.task))
    }

    fn failed(&self) -> Option<(String, String)> {
        let (task, step) = (self.task.id, StepIndex(0));
        self.answer("0/1", &Incident::StepFailed { task, step, attempt: 1, failure: failure() })
    }

    fn not_undone(&self, row: u32) -> Option<(String, String)> {
        let (task, step, failure) = (self.task.id, StepIndex(0), failure());
        let incident = Incident::CompensationFailed { task, step, attempt: 2, failure };
        self.answer(&format!("0/{row}"), &incident)
    }

    fn late(&self) -> [Option<(String, String)>; 2] {
        let (task, step, deadline) = (self.task.id, StepIndex(0), Duration::from_secs(60));
        [
            self.answer("deadline", &Incident::TaskOverdue { task, deadline }),
            self.answer(
                "0/overdue/0",
                &Incident::StepOverdue { task, step, expected_within: deadline },
            ),
        ]
    }
}

fn failure() -> Failure {
    let (code, message) = ("DOWN".to_owned(), "no".to_owned());
    Failure { class: FailureClass::Permanent, code, message }
}

fn fails() -> Occurrence {
    Occurrence::Failed { failure: failure(), next: AfterFailure::GiveUp }
}

fn is_not_undone() -> Occurrence {
    Occurrence::CompensationFailed { failure: failure(), next: AfterFailure::GiveUp }
}

fn by<Why: ToString + ?Sized>(who: &str, why: &Why) -> Option<(String, String)> {
    Some((who.to_owned(), why.to_string()))
}

#[test]
fn a_failed_step_is_answered_by_acting_on_it_or_undoing_the_task() {
    use ActionKind::{Cancel, Compensate, Pause, Resume, Retry, RetryStep, SkipStep};
    let failed = || Story::new().happens(5, 0, fails()).is(TaskState::Error);
    assert_eq!(failed().failed(), None);
    // One that the task went on without.
    assert_eq!(failed().is(TaskState::Complete).failed(), None);
    assert_eq!(failed().ada(6, TaskState::Paused, Pause, None).failed(), None);
    let resumed = failed().ada(6, TaskState::Pending, Resume, None);
    assert_eq!(resumed.failed(), None, "the other step is what that was about");

    let reopened = Some((0, Occurrence::Reopened));
    let retried = failed().ada(6, TaskState::Pending, RetryStep, reopened.clone());
    assert_eq!(retried.failed(), by("ada", &RetryStep));
    // Whatever becomes of that.
    let again = failed().ada(6, TaskState::Pending, Retry, reopened).happens(7, 0, fails());
    assert_eq!(again.is(TaskState::Error).failed(), by("ada", &Retry));
    let skips = Some((0, Occurrence::Skipped { begun: true }));
    assert_eq!(failed().ada(6, TaskState::Pending, SkipStep, skips).failed(), by("ada", &SkipStep));
    assert_eq!(failed().ada(6, TaskState::Cancelled, Cancel, None).failed(), by("ada", &Cancel));
    let undone = failed().ada(6, TaskState::Compensating, Compensate, None);
    assert_eq!(undone.failed(), by("ada", &Compensate));

    assert_eq!(failed().is(TaskState::Compensating).failed(), None);
    assert_eq!(failed().is(TaskState::Compensated).failed(), None, "nobody has seen to the cause");
}

#[test]
fn what_could_not_be_undone_waits_for_somebody() {
    let story = || Story::new().happens(4, 0, fails()).happens(5, 0, is_not_undone());
    // Others are being undone still.
    assert_eq!(story().is(TaskState::Compensating).not_undone(2), None);
    assert_eq!(story().is(TaskState::Error).not_undone(2), None);
    let retry = Some((0, Occurrence::Reopened));
    let retried = || story().ada(6, TaskState::Compensating, ActionKind::Retry, retry.clone());
    assert_eq!(retried().not_undone(2), by("ada", &ActionKind::Retry));
    let again = retried().happens(7, 0, is_not_undone()).is(TaskState::Error);
    assert_eq!((again.not_undone(2), again.not_undone(4)), (by("ada", &ActionKind::Retry), None));
    let resolved = story().ada(6, TaskState::ResolvedManually, ActionKind::Resolve, None);
    assert_eq!(resolved.not_undone(2), by("ada", &ActionKind::Resolve));
}

#[test]
fn what_takes_too_long_is_over_when_it_ends() {
    let done = Occurrence::Completed { result: Json::null() };
    assert_eq!(Story::new().late(), [None, None]);
    let step_ended = by("tasker", "step `first` has ended (complete)");
    let ended = || Story::new().happens(6, 0, done.clone());
    assert_eq!(ended().late(), [None, step_ended.clone()]);
    let complete = ended().happens(7, 1, done.clone()).is(TaskState::Complete);
    assert_eq!(complete.late(), [by("tasker", "the task has ended (complete)"), step_ended]);
    let failed = Story::new().happens(6, 0, fails()).is(TaskState::Error).late();
    assert_eq!(failed, [None, by("tasker", "step `first` has ended (error)")]);

    let before = Story::new().ada(4, TaskState::Pending, ActionKind::Resume, None);
    assert_eq!(before.late(), [None, None], "that was before it was raised");
    let paused = Story::new().ada(6, TaskState::Paused, ActionKind::Pause, None);
    assert_eq!(paused.late(), [None, None]);
    let resumed = paused.ada(7, TaskState::Pending, ActionKind::Resume, None);
    assert_eq!(resumed.late(), [by("ada", &ActionKind::Resume), by("ada", &ActionKind::Resume)]);
}

#[test]
fn only_what_may_have_been_raised_is_looked_for() {
    let end = |state| Then::End { state };
    let done = Transition {
        step: Some(StepIndex(0)),
        seq: 1,
        attempt: 1,
        ran_for: Duration::ZERO,
        what: Occurrence::Completed { result: Json::null() },
    };
    let second = |seconds| Timestamp::from_second(seconds).unwrap();
    let task = Snapshot::replay(&Story::new().task);
    for (age, may) in [(0, false), (29, false), (30, true), (1000, true)] {
        let (now, rows) = (second(age), std::slice::from_ref(&done));
        assert_eq!(may_settle(&task, rows, &Then::Keep, now), may, "a step after {age} s");
        let ends = may_settle(&task, &[], &end(TaskState::Complete), now);
        assert_eq!(ends, may, "the task after {age} s");
        assert!(!may_settle(&task, &[], &Then::Keep, now));
        assert!(!may_settle(&task, &[], &end(TaskState::Error), now));
        assert_eq!(may_settle(&task, &[], &end(TaskState::Compensated), now), may);
        assert!(may_settle(&task, &[], &end(TaskState::Cancelled), now));
    }
}

#[test]
fn what_somebody_resolved_is_left() {
    let mut story = Story::new();
    story.task.state = TaskState::Complete;
    let incident = Incident::TaskOverdue { task: story.task.id, deadline: Duration::from_secs(60) };
    let mut document = raised(&incident, deadline_key(story.task.id));
    let look = |document: &Document| {
        let raised = Documents { now: at(9), found: vec![document.clone()] };
        review(&story.task, Alarm::default(), &raised).changes
    };
    assert_eq!(look(&document).len(), 1);
    let mut record = Record::read(&document).unwrap();
    record.resolve(SeenTo::by(&Operator::new("bob", "fine"), at(8)));
    let resolved = record.replaces(&document, at(8)).unwrap().put.unwrap();
    (document.state, document.body) = (resolved.state, resolved.body);
    assert_eq!(look(&document), []);
}
