//! What the steps of a task did is undone when it fails for good, or an operator asks for it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tasker_core::{
    Action, EventKind, MemoryStore, Operator, RegisterError, RetryPolicy, StepContext, StepError,
    StepState, StepTemplate, TaskCause, TaskId, TaskRequest, TaskState, TaskTemplate, Tasker,
    Workflow, step_fn,
};

const LONG: Duration = Duration::from_secs(3600);

/// What happened outside, in its order, by idempotency key; and what is to fail.
#[derive(Default)]
struct World {
    log: Vec<String>,
    charges: BTreeMap<String, i64>,
    broken: Vec<&'static str>,
}

type Shared = Arc<Mutex<World>>;

/// Does or undoes something, unless it is broken.
async fn act(world: Shared, step: StepContext, name: &'static str) -> Result<u32, StepError> {
    let mut world = world.lock().unwrap();
    if world.broken.contains(&name) {
        return Err(StepError::permanent("BROKEN", format!("{name} is broken")));
    }
    world.log.push(name.to_owned());
    let amount = if step.is_compensation() { -1 } else { 1 };
    world.charges.entry(step.idempotency_key().to_owned()).or_insert(amount);
    match step.is_compensation() {
        true => Ok(step.own_result::<u32>()?.unwrap_or(0)),
        false => Ok(50),
    }
}

/// `reserve` and `pay`, then `pack`, then `ship`; all but `pack` say how they are undone.
fn order(world: &Shared) -> Tasker {
    let retry = || RetryPolicy::fixed(2, Duration::from_secs(1));
    let template = TaskTemplate::builder("order")
        .step(StepTemplate::new("reserve").retry(retry()).compensate_with("release"))
        .step(StepTemplate::new("pay").retry(retry()).compensate_with("refund"))
        .step(StepTemplate::new("pack").after_all(["reserve", "pay"]))
        .step(StepTemplate::new("ship").after("pack").compensate_with("recall"))
        .build()
        .unwrap();
    let names = ["reserve", "pay", "pack", "ship", "release", "refund", "recall"];
    let workflow = names.into_iter().fold(Workflow::new(template), |workflow, name| {
        let world = world.clone();
        workflow.step(name, step_fn(move |step: StepContext| act(world.clone(), step, name)))
    });
    Tasker::builder(MemoryStore::new()).register(workflow).build().unwrap()
}

fn broken(names: &[&'static str]) -> Shared {
    Arc::new(Mutex::new(World { broken: names.to_vec(), ..World::default() }))
}

fn alice() -> Operator {
    Operator::new("alice", "it was looked into")
}

async fn submit(tasker: &Tasker) -> TaskId {
    tasker.submit(TaskRequest::new("order", &()).unwrap()).await.unwrap().id
}

fn log(world: &Shared) -> Vec<String> {
    let mut log = world.lock().unwrap().log.clone();
    // Steps that do not rest on each other go at the same time.
    for pair in log.chunks_mut(2) {
        pair.sort();
    }
    log
}

#[tokio::test(start_paused = true)]
async fn a_task_that_fails_for_good_is_undone_from_its_end() {
    let world = broken(&["ship"]);
    let tasker = order(&world);
    let mut events = tasker.events();
    let worker = tasker.worker().start();
    let id = submit(&tasker).await;
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!(status.state, TaskState::Compensated);
    let states: Vec<_> = status.steps.iter().map(|step| step.state).collect();
    let undone = StepState::Compensated;
    assert_eq!(states, [undone, undone, StepState::Complete, undone]);
    let mut done = log(&world);
    // `ship` failed, and its last attempt may have had its effect all the same.
    assert_eq!(done.split_off(3)[0], "recall");
    assert_eq!(world.lock().unwrap().log[4..].len(), 2);
    assert_eq!(tasker.why(id).await.unwrap(), None);

    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        told.push(event.kind);
    }
    let compensated = |kind: &&EventKind| matches!(kind, EventKind::StepCompensated { .. });
    assert_eq!(told.iter().filter(compensated).count(), 3);
    assert!(told.iter().any(|kind| matches!(kind, EventKind::TaskCompensating)));
    assert!(matches!(told.last(), Some(EventKind::TaskCompensated)));
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_compensation_that_fails_for_good_needs_a_person_and_goes_on_by_a_retry() {
    let world = broken(&["ship", "refund"]);
    let tasker = order(&world);
    let worker = tasker.worker().start();
    let id = submit(&tasker).await;
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!(status.state, TaskState::Error);
    let pay = status.step("pay").unwrap();
    let compensation = pay.compensation.as_ref().unwrap();
    assert_eq!((pay.state, pay.attempts, compensation.attempts), (StepState::Error, 1, 1));
    assert_eq!(compensation.failure.as_ref().unwrap().message, "refund is broken");
    let why = tasker.why(id).await.unwrap().unwrap();
    assert_eq!(
        why.cause.to_string(),
        "step `pay` could not be undone: the task needs a person to retry or resolve it"
    );
    assert!(matches!(why.cause, TaskCause::CompensationFailed { .. }));
    let refused = tasker.cancel(id, &alice()).await.unwrap_err();
    assert!(refused.to_string().starts_with("the task is error, so it cannot be cancelled"));

    world.lock().unwrap().broken.clear();
    let status = tasker.retry(id, &alice()).await.unwrap();
    assert_eq!(status.state, TaskState::Compensating);
    assert_eq!(tasker.wait(id, LONG).await.unwrap().state, TaskState::Compensated);
    let refunds = world.lock().unwrap().log.iter().filter(|it| *it == "refund").count();
    assert_eq!(refunds, 1);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_person_undoes_what_the_compensation_cannot() {
    let world = broken(&["ship", "refund"]);
    let tasker = order(&world);
    let worker = tasker.worker().start();
    let id = submit(&tasker).await;
    tasker.wait(id, LONG).await.unwrap();
    let by_hand = Action::SkipStep { step: "pay".to_owned() };
    tasker.operate(id, by_hand, &alice()).await.unwrap();
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!(status.state, TaskState::Compensated);
    assert_eq!(status.step("pay").unwrap().state, StepState::Compensated);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_compensated_runs_again_under_other_keys() {
    let world = broken(&["ship"]);
    let tasker = order(&world);
    let worker = tasker.worker().start();
    let id = submit(&tasker).await;
    tasker.wait(id, LONG).await.unwrap();
    world.lock().unwrap().broken.clear();
    tasker.retry(id, &alice()).await.unwrap();
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!(status.state, TaskState::Complete);

    let status = tasker.operate(id, Action::Compensate, &alice()).await.unwrap();
    assert_eq!(status.state, TaskState::Compensating);
    assert_eq!(tasker.wait(id, LONG).await.unwrap().state, TaskState::Compensated);
    let charges = world.lock().unwrap().charges.clone();
    // The first time four steps of which the last failed, the second time all four; each of the
    // three that say how was undone twice.
    assert_eq!(charges.values().filter(|amount| **amount == 1).count(), 3 + 4);
    assert_eq!(charges.values().filter(|amount| **amount == -1).count(), 3 + 3);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_task_is_undone_where_it_may_have_begun() {
    let world = broken(&[]);
    let tasker = order(&world);
    let id = submit(&tasker).await;
    tasker.cancel(id, &alice()).await.unwrap();
    tasker.operate(id, Action::Compensate, &alice()).await.unwrap();
    let worker = tasker.worker().start();
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!(status.state, TaskState::Compensated);
    // Nothing held the first two up; nobody can have begun the others.
    let states: Vec<_> = status.steps.iter().map(|step| step.state).collect();
    let (undone, never) = (StepState::Compensated, StepState::Cancelled);
    assert_eq!(states, [undone, undone, never, never]);
    assert_eq!(log(&world), ["refund", "release"]);
    worker.shutdown(LONG).await;
}

#[test]
fn a_workflow_needs_the_handlers_that_undo() {
    let template = TaskTemplate::builder("order")
        .step(StepTemplate::new("pay").compensate_with("refund"))
        .build()
        .unwrap();
    let workflow = Workflow::new(template).step("pay", step_fn(|_: StepContext| async { Ok(()) }));
    let refused = Tasker::builder(MemoryStore::new()).register(workflow).build().unwrap_err();
    let RegisterError::MissingHandlers(missing) = refused else { panic!("{refused}") };
    assert_eq!(missing.names, ["refund"]);
}
