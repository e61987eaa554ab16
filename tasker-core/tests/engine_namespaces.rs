//! Workers that take the tasks of some namespaces only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use tasker_core::history::Author;
use tasker_core::store::StateStore;
use tasker_core::{
    MemoryStore, StepContext, StepTemplate, TaskId, TaskRequest, TaskState, TaskTemplate, Tasker,
    WorkerId, Workflow, step_fn,
};

const LONG: Duration = Duration::from_secs(3600);

/// The same task in three namespaces: as many steps at once as there are.
fn tasker(store: &MemoryStore) -> Tasker {
    let mut tasker = Tasker::builder(store.clone());
    for namespace in ["mail", "payments", "reports"] {
        let mut template = TaskTemplate::builder("task").namespace(namespace);
        for step in ["a", "b", "c", "d", "e", "f"] {
            template = template.step(StepTemplate::new(step).handler("slow"));
        }
        let slow = step_fn(|_: StepContext| async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(())
        });
        tasker = tasker.register(Workflow::new(template.build().unwrap()).step("slow", slow));
    }
    tasker.build().unwrap()
}

async fn submit(tasker: &Tasker, namespace: &str) -> TaskId {
    let request = TaskRequest::new(format!("{namespace}/task"), &()).unwrap();
    tasker.submit(request).await.unwrap().id
}

async fn authors(store: &MemoryStore, task: TaskId) -> Vec<Author> {
    let mut authors: Vec<_> =
        store.load(task).await.unwrap().unwrap().rows.into_iter().map(|row| row.author).collect();
    authors.dedup();
    authors
}

#[tokio::test(start_paused = true)]
async fn a_worker_takes_the_namespaces_that_it_was_given() {
    let store = MemoryStore::new();
    // Of one process, so that a submission could hand its task to either worker.
    let tasker = tasker(&store);
    let mail = tasker.worker().namespaces(["mail", "reports"]).start();
    let rest = tasker.worker().namespaces(["payments"]).start();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let mut owners: Vec<(&str, Option<WorkerId>)> = Vec::new();
    for namespace in ["mail", "payments", "reports", "payments", "mail"] {
        let id = submit(&tasker, namespace).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        owners.push((namespace, store.load(id).await.unwrap().unwrap().owner));
        assert_eq!(tasker.wait(id, LONG).await.unwrap().state, TaskState::Complete);
    }
    let owner = |namespace| owners.iter().filter(move |(of, _)| *of == namespace);
    let (mail_owner, payments_owner) = (owners[0].1.unwrap(), owners[1].1.unwrap());
    assert_ne!(mail_owner, payments_owner);
    assert!(owner("mail").chain(owner("reports")).all(|(_, it)| *it == Some(mail_owner)));
    assert!(owner("payments").all(|(_, it)| *it == Some(payments_owner)));
    mail.shutdown(LONG).await;
    rest.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_offered_no_steps_of_other_namespaces() {
    let store = MemoryStore::new();
    let tasker = tasker(&store);
    let busy = tasker.worker().slots(1).namespaces(["mail"]).start();
    let free = tasker.worker().namespaces(["payments", "reports"]).start();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let id = submit(&tasker, "mail").await;
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!(status.state, TaskState::Complete, "what it offered in vain it runs itself");
    assert_eq!(authors(&store, id).await.len(), 1, "the free worker does not serve the namespace");
    busy.shutdown(LONG).await;
    free.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_no_worker_takes_waits() {
    let store = MemoryStore::new();
    let tasker = tasker(&store);
    let worker = tasker.worker().namespaces(["reports", "a misspelt one"]).start();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let id = submit(&tasker, "mail").await;
    tokio::time::sleep(LONG).await;
    assert_eq!(tasker.status(id).await.unwrap().unwrap().state, TaskState::Pending);
    let late = tasker.worker().start();
    assert_eq!(tasker.wait(id, LONG).await.unwrap().state, TaskState::Complete);
    worker.shutdown(LONG).await;
    late.shutdown(LONG).await;
}
