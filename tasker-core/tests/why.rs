//! Each cause for which a task or step does not move, as data and as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tasker_core::history::{
    AfterFailure, Aspect, Author, Failure, FailureClass, Occurrence, Operation, Recorded,
    Transition,
};
use tasker_core::store::{Route, StoredTask};
use tasker_core::{
    ActionKind, Json, MemoryStore, OnFailure, Operator, Priority, RetryPolicy, StepContext,
    StepIndex, StepTemplate, TaskCause, TaskId, TaskRequest, TaskState, TaskTemplate, Tasker, Why,
    WorkerId, Workflow, step_fn,
};
use uuid::Uuid;

const PAY: StepIndex = StepIndex(0);
const PACK: StepIndex = StepIndex(1);
const SHIP: StepIndex = StepIndex(2);

/// Nothing of a context or a result may be told.
const SECRET: &str = "secret";

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

fn worker() -> WorkerId {
    Uuid::from_u128(7).into()
}

/// `pay` and `pack`, which may fail, then `ship`; submitted at 0 and looked at after a minute.
fn order() -> StoredTask {
    let template = TaskTemplate::builder("order")
        .step(StepTemplate::new("pay").retry(RetryPolicy { limit: 2, ..RetryPolicy::default() }))
        .step(StepTemplate::new("pack").on_failure(OnFailure::Continue))
        .step(StepTemplate::new("ship").handler("send").after_all(["pay", "pack"]))
        .build()
        .unwrap();
    StoredTask {
        id: TaskId::new(),
        template: Arc::new(template),
        context: Json::of(SECRET).unwrap(),
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
        now: at(60),
        rows: Vec::new(),
    }
}

/// Adds a row to the log of a step, or of the task.
fn with(
    mut task: StoredTask,
    step: Option<StepIndex>,
    second: i64,
    what: Occurrence,
) -> StoredTask {
    let log = task.rows.iter().filter(|row| row.transition.step == step);
    let seq = log.count() as u32 + 1;
    let attempt = if step.is_some() { seq } else { 0 };
    let transition = Transition { step, seq, attempt, ran_for: Duration::ZERO, what };
    let author = Author::Operator("Ada".to_owned());
    task.rows.push(Recorded { at: at(second), author, transition });
    task
}

fn done() -> Occurrence {
    Occurrence::Completed { result: Json::of(SECRET).unwrap() }
}

fn failure(class: FailureClass, next: AfterFailure) -> Occurrence {
    let (code, message) = ("BROKEN".to_owned(), "it is broken".to_owned());
    Occurrence::Failed { failure: Failure { class, code, message }, next }
}

fn ordered(action: ActionKind, reason: &str, to: TaskState) -> Occurrence {
    let (before, after) = (Aspect::of(TaskState::Error), Aspect::of(to));
    let (reason, ended_at) = (reason.to_owned(), None);
    let operation = Operation { action, step: None, reason, key: None, ended_at, before, after };
    Occurrence::Operated(Box::new(operation))
}

fn retry_in(seconds: u64) -> Occurrence {
    failure(FailureClass::Retryable, AfterFailure::RetryIn(Duration::from_secs(seconds)))
}

fn gave_up(class: FailureClass) -> Occurrence {
    failure(class, AfterFailure::GiveUp)
}

/// What is said of the task and then of its steps; and nothing of it is a secret.
fn sentences(task: &StoredTask) -> Vec<String> {
    let why = Why::of(task).unwrap();
    let told = serde_json::to_value(&why).unwrap();
    assert!(!told.to_string().contains(SECRET), "{told}");
    assert_eq!(told["sentence"], why.to_string());
    // No cause has a field of that name, too.
    assert_eq!(serde_json::to_string(&why).unwrap().matches(r#""steps":"#).count(), 1);
    let steps = why.steps.iter().map(ToString::to_string);
    std::iter::once(why.to_string()).chain(steps).collect()
}

#[test]
fn a_complete_task_needs_no_explanation() {
    assert_eq!(Why::of(&StoredTask { state: TaskState::Complete, ..order() }), None);
}

#[test]
fn a_delayed_task_waits_for_its_time() {
    let task = StoredTask { state: TaskState::Pending, wake_at: Some(at(90)), ..order() };
    let delayed = "the task was submitted with a delay: it may start at 1970-01-01T00:01:30Z";
    assert_eq!(sentences(&task)[0], delayed);
}

#[test]
fn a_queued_task_waits_for_a_worker_that_serves_its_route() {
    let task = StoredTask { state: TaskState::Pending, wake_at: Some(at(0)), ..order() };
    let since = "since 1970-01-01T00:00:00Z";
    assert_eq!(
        sentences(&task),
        [
            &format!("the task waits for a worker that serves `default/order@0.1.0`, {since}"),
            &format!("step `pay` waits {since} for a worker that has handler `pay`"),
            &format!("step `pack` waits {since} for a worker that has handler `pack`"),
            "step `ship` waits for steps `pay`, `pack`",
        ]
    );
}

#[test]
fn a_task_whose_worker_was_lost_says_so() {
    let lost = Occurrence::WorkerLost { worker: worker() };
    let task = with(StoredTask { wake_at: Some(at(50)), ..order() }, None, 50, lost);
    assert_eq!(
        sentences(&task)[0],
        "the task waits for a worker that serves `default/order@0.1.0`, since \
         1970-01-01T00:00:50Z, when worker 00000000-0000-0000-0000-000000000007 was lost"
    );
}

#[test]
fn a_task_that_was_put_back_waits_for_a_handler() {
    let task = StoredTask { wake_at: Some(at(30)), ..order() };
    let route = Some(Route::to_handler(&task.template, "send"));
    let task = StoredTask { route, ..task };
    let task = with(with(task, Some(PAY), 20, done()), Some(PACK), 30, done());
    assert_eq!(
        sentences(&task),
        [
            "the task waits for a worker that has handler `send`, since 1970-01-01T00:00:30Z",
            "step `ship` waits since 1970-01-01T00:00:30Z for a worker that has handler `send`",
        ]
    );
}

#[test]
fn a_failed_attempt_is_retried_at_its_time() {
    let task = StoredTask { wake_at: Some(at(90)), ..order() };
    let task = with(with(task, Some(PACK), 20, done()), Some(PAY), 30, retry_in(60));
    assert_eq!(
        sentences(&task),
        [
            "the task goes on at 1970-01-01T00:01:30Z with a retry of step `pay`",
            "step `pay` retries at 1970-01-01T00:01:30Z: attempt 1 of 2 failed with BROKEN (it is \
             broken)",
            "step `ship` waits for step `pay`",
        ]
    );
}

#[test]
fn a_retry_that_is_due_waits_for_a_worker() {
    let task = StoredTask { wake_at: Some(at(40)), ..order() };
    let task = with(with(task, Some(PACK), 20, done()), Some(PAY), 30, retry_in(10));
    assert_eq!(
        sentences(&task)[..2],
        [
            "the task waits for a worker that serves `default/order@0.1.0`, since \
             1970-01-01T00:00:40Z",
            "step `pay` waits since 1970-01-01T00:00:40Z for a worker that has handler `pay`",
        ]
    );
}

#[test]
fn an_owned_task_names_its_worker_and_what_may_run_there() {
    let lease_until = Some(at(90));
    let task = StoredTask { owner: Some(worker()), lease_until, ..order() };
    let task = with(task, Some(PACK), 20, done());
    let at_worker = "worker 00000000-0000-0000-0000-000000000007";
    let lease = "(lease until 1970-01-01T00:01:30Z)";
    assert_eq!(
        sentences(&task)[..2],
        [
            format!(
                "{at_worker} {lease} owns the task: step `pay` runs there, waits there for a slot, or is \
                 offered to other workers"
            ),
            format!(
                "step `pay` is due since 1970-01-01T00:00:00Z: handler `pay` runs at {at_worker}, \
                 waits there for a slot, or is offered to other workers"
            ),
        ]
    );
    let task = with(with(task, Some(PAY), 30, done()), Some(SHIP), 40, done());
    let recording = format!("{at_worker} {lease} is about to record what becomes of the task");
    assert_eq!(sentences(&task), [recording]);
}

#[test]
fn a_task_that_is_failing_lets_its_siblings_end() {
    let task = StoredTask { owner: Some(worker()), ..order() };
    let task = with(task, Some(PAY), 20, gave_up(FailureClass::Permanent));
    assert_eq!(
        sentences(&task),
        [
            "step `pay` failed for good: the task fails as soon as what else runs at worker \
             00000000-0000-0000-0000-000000000007 has ended",
            "step `pay` failed for good at attempt 1 with BROKEN (it is broken): no attempt would \
             succeed",
            "step `pack` is not begun any more, and may end if it runs: the task has failed",
            "step `ship` waits for steps `pay`, `pack`",
        ]
    );
}

#[test]
fn a_failed_task_needs_a_person_and_says_for_which_step() {
    let task = StoredTask { state: TaskState::Error, ended_at: Some(at(40)), ..order() };
    let task = with(task, Some(PACK), 10, gave_up(FailureClass::Permanent));
    let task = with(task, Some(PAY), 20, retry_in(10));
    let task = with(task, Some(PAY), 40, gave_up(FailureClass::TimedOut));
    assert_eq!(
        sentences(&task),
        [
            "step `pay` failed for good: the task needs a person to retry or cancel it",
            "step `pay` failed for good at attempt 2 with BROKEN (it is broken): its attempts are \
             used up",
            // `pack` failed too, and `ship` does without.
            "step `ship` waits for step `pay`",
        ]
    );
}

#[test]
fn a_quarantined_task_needs_a_person() {
    let task = StoredTask { state: TaskState::Error, ended_at: Some(at(40)), ..order() };
    let task = with(task, None, 40, Occurrence::Quarantined { deliveries: 10 });
    assert_eq!(
        sentences(&task)[..2],
        [
            "10 workers were lost with the task in a row: it is quarantined and needs a person to \
             retry or cancel it",
            "step `pay` is not begun any more, and may end if it runs: the task has failed",
        ]
    );
}

#[test]
fn a_cancelled_task_says_who_and_why() {
    let reason = "ordered twice".to_owned();
    let task = StoredTask { state: TaskState::Cancelled, ended_at: Some(at(40)), ..order() };
    let task = with(task, None, 40, ordered(ActionKind::Cancel, &reason, TaskState::Cancelled));
    assert_eq!(sentences(&task), ["the task was cancelled by Ada: ordered twice"]);
    let told = serde_json::to_value(Why::of(&task).unwrap()).unwrap();
    let expected = json!({
        "cause": "cancelled",
        "by": {"operator": "Ada"},
        "reason": "ordered twice",
        "sentence": "the task was cancelled by Ada: ordered twice",
        "steps": [],
    });
    assert_eq!(told, expected);
}

#[test]
fn a_task_that_was_set_aside_for_a_system_names_it() {
    let template = TaskTemplate::builder("order")
        .step(StepTemplate::new("pay").dependent_system("bank"))
        .step(StepTemplate::new("pack"))
        .build()
        .unwrap();
    let route = Some(Route::to_system(&template, "bank", "pay"));
    let template = Arc::new(template);
    let task = StoredTask { template, route, wake_at: Some(at(30)), ..order() };
    let task = with(task, Some(PACK), 20, done());
    assert_eq!(
        sentences(&task),
        [
            "the task waits for `bank`: there are as many calls to it as it is known to bear",
            "step `pay` waits for `bank`: there are as many calls to it as it is known to bear",
        ]
    );
}

#[test]
fn a_paused_task_says_who_holds_it_up_and_why() {
    let task = StoredTask { state: TaskState::Paused, ..order() };
    let paused = ordered(ActionKind::Pause, "stock-taking", TaskState::Paused);
    let task = with(task, None, 40, paused);
    assert_eq!(
        sentences(&task)[..2],
        [
            "the task was paused by Ada at 1970-01-01T00:00:40Z: stock-taking",
            "step `pay` goes on once its task is resumed",
        ]
    );
}

/// `pay`, then `pack`, then `ship`; the first two say how they are undone, the last has failed.
fn undone() -> StoredTask {
    let template = TaskTemplate::builder("order")
        .step(StepTemplate::new("pay").compensate_with("refund"))
        .step(StepTemplate::new("pack").after("pay").compensate_with("unpack"))
        .step(StepTemplate::new("ship").after("pack"))
        .build()
        .unwrap();
    let task = StoredTask {
        template: Arc::new(template),
        state: TaskState::Compensating,
        wake_at: Some(at(30)),
        ..order()
    };
    let task = with(with(task, Some(PAY), 10, done()), Some(PACK), 20, done());
    let task = with(task, Some(SHIP), 30, gave_up(FailureClass::Permanent));
    with(task, None, 30, Occurrence::CompensationBegun)
}

#[test]
fn a_task_that_is_undone_says_what_is_left_and_why_it_does_not_move() {
    assert_eq!(
        sentences(&undone()),
        [
            "the task is being undone, steps `pay`, `pack` to go: the task waits for a worker that \
             serves `default/order@0.1.0`, since 1970-01-01T00:00:30Z",
            "step `pay` is undone after step `pack`",
            "step `pack` waits since 1970-01-01T00:00:30Z for a worker that has handler `unpack`",
        ]
    );
    let told = serde_json::to_value(Why::of(&undone()).unwrap()).unwrap();
    assert_eq!((&told["cause"], &told["left"]), (&json!("compensating"), &json!(["pay", "pack"])));
    assert_eq!(told["now"]["cause"], "waits_for_worker");
}

#[test]
fn an_attempt_to_undo_is_retried_at_its_time() {
    let (code, message) = ("BROKEN".to_owned(), "it is broken".to_owned());
    let failure = Failure { class: FailureClass::Retryable, code, message };
    let next = AfterFailure::RetryIn(Duration::from_secs(60));
    let failed = Occurrence::CompensationFailed { failure: failure.clone(), next };
    let task = with(StoredTask { wake_at: Some(at(100)), ..undone() }, Some(PACK), 40, failed);
    assert_eq!(
        sentences(&task),
        [
            "the task is being undone, steps `pay`, `pack` to go: the task goes on at \
             1970-01-01T00:01:40Z with a retry of step `pack`",
            "step `pay` is undone after step `pack`",
            "step `pack` retries at 1970-01-01T00:01:40Z: attempt 1 of 3 failed with BROKEN (it is \
             broken)",
        ]
    );
    let next = AfterFailure::GiveUp;
    let failed = Occurrence::CompensationFailed { failure, next };
    let task = StoredTask { state: TaskState::Error, wake_at: None, ..undone() };
    assert_eq!(
        sentences(&with(task, Some(PACK), 40, failed)),
        [
            "step `pack` could not be undone: the task needs a person to retry or resolve it",
            "step `pay` is undone after step `pack`",
            "step `pack` could not be undone at attempt 2 with BROKEN (it is broken): its attempts \
             are used up",
        ]
    );
}

#[test]
fn a_cause_is_data() {
    let task = StoredTask { wake_at: Some(at(90)), ..order() };
    let task = with(with(task, Some(PACK), 20, done()), Some(PAY), 30, retry_in(60));
    let told = serde_json::to_value(Why::of(&task).unwrap()).unwrap();
    assert_eq!(told["cause"], "waits_for_retry");
    assert_eq!(told["retries"], json!(["pay"]));
    assert_eq!(told["steps"][0]["step"], "pay");
    assert_eq!(told["steps"][0]["cause"], "waits_for_retry");
    assert_eq!(told["steps"][0]["failure"]["code"], "BROKEN");
    assert_eq!(told["steps"][1]["waits_for"], json!(["pay"]));
}

/// A worker that lacks a handler: the engine moves the task, and `why` sees it.
#[tokio::test(start_paused = true)]
async fn a_missing_handler_is_named() {
    let template = TaskTemplate::builder("order")
        .step(StepTemplate::new("pay"))
        .step(StepTemplate::new("ship").handler("send").after("pay"))
        .build()
        .unwrap();
    let workflow = Workflow::new(template).step("pay", step_fn(|_: StepContext| async { Ok(()) }));
    let tasker = Tasker::builder(MemoryStore::new()).register_partial(workflow).build().unwrap();
    let id = tasker.submit(TaskRequest::new("order", &()).unwrap()).await.unwrap().id;
    let worker = tasker.worker().start();
    // Time passes in steps of the poll until nothing more happens.
    assert!(tasker.wait(id, Duration::from_secs(60)).await.is_err());
    let why = tasker.why(id).await.unwrap().unwrap();
    let TaskCause::WaitsForHandler { handlers, .. } = &why.cause else { panic!("{why:?}") };
    assert_eq!(handlers, &["send"]);
    worker.shutdown(Duration::from_secs(1)).await;

    tasker.cancel(id, &Operator::new("Ada", "nobody sends")).await.unwrap();
    let why = tasker.why(id).await.unwrap().unwrap();
    assert_eq!(why.to_string(), "the task was cancelled by Ada: nobody sends");
    assert_eq!(tasker.why(TaskId::new()).await.unwrap(), None);
}
