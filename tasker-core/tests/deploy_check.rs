//! Which unfinished tasks a deployment would strand.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tasker_core::{
    EventKind, Lack, MemoryStore, OnFailure, Operator, RetryPolicy, StepContext, StepError,
    StepTemplate, Stranded, StrandedCursor, TaskId, TaskRequest, TaskState, TaskTemplate, Tasker,
    Workflow, step_fn,
};

const LONG: Duration = Duration::from_secs(3600);

/// `pay` is declined unless its context says otherwise, and `ship` comes after it.
fn order(version: &str, ship: OnFailure) -> TaskTemplate {
    TaskTemplate::builder("order")
        .version(version)
        .step(StepTemplate::new("pay").retry(RetryPolicy::none()))
        .step(StepTemplate::new("ship").after("pay").on_failure(ship))
        .build()
        .unwrap()
}

/// A process with these handlers for a template.
fn process(store: &Arc<MemoryStore>, template: TaskTemplate, handlers: &[&str]) -> Tasker {
    let pay = step_fn(|step: StepContext| async move {
        let pays: bool = step.context()?;
        if pays { Ok(()) } else { Err(StepError::permanent("DECLINED", "the card was declined")) }
    });
    let (pay, ship) = (Arc::new(pay), Arc::new(step_fn(|_: StepContext| async { Ok(()) })));
    let workflow = handlers.iter().fold(Workflow::new(template), |workflow, name| match *name {
        "pay" => workflow.step("pay", pay.clone()),
        name => workflow.step(name, ship.clone()),
    });
    Tasker::builder_on(store.clone()).register_partial(workflow).build().unwrap()
}

async fn submit(tasker: &Tasker, pays: bool) -> TaskId {
    tasker.submit(TaskRequest::new("order", &pays).unwrap()).await.unwrap().id
}

/// All pages; none looks at more than 100 tasks.
async fn stranded(tasker: &Tasker) -> Vec<Stranded> {
    let mut found = Vec::new();
    let mut cursor = Some(StrandedCursor::default());
    while let Some(from) = cursor {
        let page = tasker.stranded(from).await.unwrap();
        assert!(page.looked_at <= 100 && page.stranded.len() <= page.looked_at);
        found.extend(page.stranded);
        cursor = page.next;
    }
    found
}

async fn lacks(tasker: &Tasker) -> Vec<(TaskId, Lack)> {
    stranded(tasker).await.into_iter().map(|it| (it.task, it.lacks)).collect()
}

#[tokio::test]
async fn nothing_is_stranded_where_all_is_registered() {
    let store = Arc::new(MemoryStore::new());
    let tasker = process(&store, order("1.0.0", OnFailure::Fail), &["pay", "ship"]);
    submit(&tasker, true).await;
    assert_eq!(stranded(&tasker).await, []);
}

#[tokio::test]
async fn a_task_needs_its_name_and_its_version() {
    let store = Arc::new(MemoryStore::new());
    let old = process(&store, order("1.0.0", OnFailure::Fail), &["pay", "ship"]);
    let id = submit(&old, true).await;

    let new = process(&store, order("2.0.0", OnFailure::Fail), &["pay", "ship"]);
    let registered = vec!["default/order@2.0.0".to_owned()];
    assert_eq!(lacks(&new).await, [(id, Lack::Version { registered })]);
    assert_eq!(
        stranded(&new).await[0].to_string(),
        format!(
            "task {id}, `default/order@1.0.0`, would be stranded: its version is not registered, \
             only `default/order@2.0.0`"
        )
    );

    let none = Tasker::builder_on(store).build().unwrap();
    assert_eq!(lacks(&none).await, [(id, Lack::Name)]);
}

#[tokio::test]
async fn a_task_needs_the_handlers_of_its_own_template() {
    let store = Arc::new(MemoryStore::new());
    let fallback = OnFailure::Fallback("collect".to_owned());
    let old = process(&store, order("1.0.0", fallback), &["pay", "ship", "collect"]);
    let id = submit(&old, true).await;

    // The same version, without the fallback that tasks of the older template may need.
    let new = process(&store, order("1.0.0", OnFailure::Fail), &["pay", "ship"]);
    let lack = |missing: &[&str]| {
        let missing = missing.iter().map(ToString::to_string).collect();
        vec![(id, Lack::Handlers { missing })]
    };
    assert_eq!(lacks(&new).await, lack(&["collect"]));
    let less = process(&store, order("1.0.0", OnFailure::Fail), &["ship"]);
    assert_eq!(lacks(&less).await, lack(&["pay", "collect"]));
}

#[tokio::test(start_paused = true)]
async fn a_complete_step_needs_no_handler() {
    let store = Arc::new(MemoryStore::new());
    let pays = process(&store, order("1.0.0", OnFailure::Fail), &["pay"]);
    let id = submit(&pays, true).await;
    assert_eq!(lacks(&pays).await, [(id, Lack::Handlers { missing: vec!["ship".into()] })]);

    let mut events = pays.events();
    let worker = pays.worker().start();
    while !matches!(events.recv().await.unwrap().kind, EventKind::StepCompleted { .. }) {}
    worker.shutdown(LONG).await;
    let ships = process(&store, order("1.0.0", OnFailure::Fail), &["ship"]);
    assert_eq!(stranded(&ships).await, []);
}

#[tokio::test(start_paused = true)]
async fn failed_tasks_are_told_apart_and_ended_ones_not_at_all() {
    let store = Arc::new(MemoryStore::new());
    let old = process(&store, order("1.0.0", OnFailure::Fail), &["pay", "ship"]);
    let worker = old.worker().start();
    let (failed, complete) = (submit(&old, false).await, submit(&old, true).await);
    assert_eq!(old.wait(failed, LONG).await.unwrap().state, TaskState::Error);
    assert_eq!(old.wait(complete, LONG).await.unwrap().state, TaskState::Complete);
    worker.shutdown(LONG).await;
    let cancelled = submit(&old, true).await;
    old.cancel(cancelled, &Operator::new("Ada", "by mistake")).await.unwrap();

    let none = Tasker::builder_on(store.clone()).build().unwrap();
    let found = stranded(&none).await;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].task, found[0].only_if_retried()), (failed, true));
    assert_eq!(
        found[0].to_string(),
        format!(
            "task {failed}, `default/order@1.0.0`, would be stranded by a retry: no version of it \
             is registered"
        )
    );

    // A retry runs the failed step again and what comes after it.
    let less = process(&store, order("1.0.0", OnFailure::Fail), &["ship"]);
    assert_eq!(lacks(&less).await, [(failed, Lack::Handlers { missing: vec!["pay".into()] })]);
}

#[tokio::test]
async fn pages_find_each_task_once() {
    let store = Arc::new(MemoryStore::new());
    let old = process(&store, order("1.0.0", OnFailure::Fail), &["pay", "ship"]);
    let mut submitted = BTreeSet::new();
    for _ in 0..250 {
        submitted.insert(submit(&old, true).await);
    }
    let found = stranded(&Tasker::builder_on(store).build().unwrap()).await;
    assert_eq!(found.len(), submitted.len());
    assert_eq!(found.iter().map(|it| it.task).collect::<BTreeSet<_>>(), submitted);
}
