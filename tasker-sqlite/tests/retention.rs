//! Tasks that ended long ago are deleted, and nothing else is.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use tasker_core::history::Author;
use tasker_core::store::{
    Assumption, Collection, DocumentQuery, NewTask, StateStore, TaskChange, TaskQuery, Then,
};
use tasker_core::{
    Action, Json, Operator, Priority, StepContext, StepError, StepTemplate, TaskId, TaskRequest,
    TaskState, TaskTemplate, Tasker, Workflow, step_fn,
};
use tasker_sqlite::SqliteStore;

const HOUR: Duration = Duration::from_secs(3600);
const DEADLINE: Duration = Duration::from_secs(60);

async fn submit(tasker: &Tasker, good: bool, key: &str) -> TaskId {
    let request = TaskRequest::new("task", &good).unwrap().idempotency_key(key);
    let receipt = tasker.submit(request).await.unwrap();
    assert!(!receipt.already_existed);
    receipt.id
}

#[tokio::test]
async fn what_has_ended_goes_with_all_that_is_known_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(directory.path().join("tasks.db")).await.unwrap());
    let template = TaskTemplate::builder("task").step(StepTemplate::new("step"));
    let handler = step_fn(|step: StepContext| async move {
        if step.context::<bool>()? { Ok(()) } else { Err(StepError::permanent("NO", "no")) }
    });
    let workflow = Workflow::new(template.build().unwrap()).step("step", handler);
    let tasker = Tasker::builder_on(store.clone()).register(workflow).build().unwrap();
    let worker = tasker.worker().start();
    for number in 0..25 {
        let task = submit(&tasker, true, &number.to_string()).await;
        tasker.wait(task, DEADLINE).await.unwrap();
    }
    let failed = submit(&tasker, false, "failed").await;
    tasker.wait(failed, DEADLINE).await.unwrap();
    worker.shutdown(DEADLINE).await;
    let cancelled = submit(&tasker, true, "cancelled").await;
    tasker.cancel(cancelled, &Operator::new("ada", "no")).await.unwrap();
    let waiting = submit(&tasker, true, "waits").await;

    assert_eq!(store.delete_ended(HOUR, 10).await.unwrap(), 0, "all of it is young");
    assert_eq!(store.delete_ended(Duration::MAX, 10).await.unwrap(), 0);
    let mut deleted = 0;
    while deleted < 26 {
        // What ended in this very millisecond is not older than nothing.
        deleted += store.delete_ended(Duration::ZERO, 10).await.unwrap();
    }
    assert_eq!(deleted, 26);
    let left = tasker.find(TaskQuery::default()).await.unwrap();
    assert_eq!(left.iter().map(|task| task.id).collect::<Vec<_>>(), [waiting, failed]);
    assert!(tasker.history(cancelled).await.unwrap().is_none());
    assert_eq!(store.delete_failed(Duration::ZERO, 10).await.unwrap(), 1);

    // The rest goes on, and the keys are free.
    let worker = tasker.worker().start();
    let again = submit(&tasker, true, "3").await;
    for task in [waiting, again] {
        assert_eq!(tasker.wait(task, DEADLINE).await.unwrap().state, TaskState::Complete);
    }
    worker.shutdown(DEADLINE).await;
}

#[tokio::test]
async fn what_needs_nobody_any_more_goes_with_its_alarm() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("tasks.db")).await.unwrap();
    let template = TaskTemplate::builder("task").deadline(HOUR).step(StepTemplate::new("step"));
    let template = Arc::new(template.build().unwrap());
    let states = TaskState::ALL.map(|state| (state, TaskId::new()));
    for (state, id) in states {
        let (template, context) = (Arc::clone(&template), Json::null());
        let (idempotency_key, delay, priority) = (None, Duration::ZERO, Priority::Normal);
        let new = NewTask { id, template, context, idempotency_key, delay, priority };
        store.create(vec![new], None).await.unwrap();
        let (assumes, rows, offers) = (Assumption::Unmoved { version: 0 }, Vec::new(), Vec::new());
        let then = Then::End { state };
        let change =
            TaskChange { task: id, assumes, rows, offers, then, degraded: None, review: false };
        store.commit(&Author::Operator("ada".to_owned()), vec![change]).await.unwrap();
    }
    let ended = [
        TaskState::Complete,
        TaskState::Cancelled,
        TaskState::Compensated,
        TaskState::ResolvedManually,
    ];
    let mut deleted = 0;
    while deleted < 4 {
        deleted += store.delete_ended(Duration::ZERO, 10).await.unwrap();
    }
    for (state, id) in states {
        let gone = ended.contains(&state);
        assert_eq!(store.load(id).await.unwrap().is_none(), gone, "{state}");
        let (collection, keys) = (Collection::Alarm, vec![id.to_string()]);
        let alarm = store.read_documents(DocumentQuery::Keys { collection, keys }).await.unwrap();
        assert_eq!(alarm.found.is_empty(), gone, "{state}");
    }
}

#[tokio::test]
async fn what_is_resolved_goes_with_its_task_and_what_is_open_stays() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(directory.path().join("tasks.db")).await.unwrap());
    let template = TaskTemplate::builder("task").step(StepTemplate::new("step"));
    let handler =
        step_fn(|_: StepContext| async { Err::<(), _>(StepError::permanent("NO", "no")) });
    let workflow = Workflow::new(template.build().unwrap()).step("step", handler);
    let tasker = Tasker::builder_on(store.clone()).register(workflow).build().unwrap();
    let worker = tasker.worker().start();
    let (closed, open) = (submit(&tasker, false, "a").await, submit(&tasker, false, "b").await);
    for task in [closed, open] {
        tasker.wait(task, DEADLINE).await.unwrap();
    }
    let closes = Operator::new("ada", "seen to");
    tasker.operate(closed, Action::Resolve, &closes).await.unwrap();
    worker.shutdown(DEADLINE).await;
    assert_eq!(raised(&store).await.len(), 2);
    let mut deleted = 0;
    while deleted < 2 {
        deleted += store.delete_ended(Duration::ZERO, 10).await.unwrap();
        deleted += store.delete_failed(Duration::ZERO, 10).await.unwrap();
    }
    let left = raised(&store).await;
    assert!(left.len() == 1 && left[0].starts_with(&open.to_string()), "{left:?}");
}

/// The keys of the escalations that there are.
async fn raised(store: &SqliteStore) -> Vec<String> {
    let (collection, state, after, limit) = (Collection::Escalation, None, None, 0);
    let list = DocumentQuery::List { collection, state, after, limit };
    let found = store.read_documents(list).await.unwrap().found;
    found.into_iter().map(|document| document.key).collect()
}
