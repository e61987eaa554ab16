//! What the cases are made of: small tasks, workers and changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::history::{Aspect, Author, Occurrence, Operation, Transition};
use crate::store::{
    Applied, Assumption, ClaimRequest, Claimed, Collection, Committed, Content, Created, Document,
    DocumentChange, DocumentQuery, Heartbeat, NewOffer, NewTask, Renewed, Route, StateStore,
    StoredTask, TaskChange, Then, Work,
};
use crate::{
    ActionKind, Json, Priority, StepIndex, StepTemplate, TaskId, TaskState, TaskTemplate, WorkerId,
};

pub(super) const LONG: Duration = Duration::from_secs(3600);
pub(super) const FIRST: StepIndex = StepIndex(0);
pub(super) const SECOND: StepIndex = StepIndex(1);
pub(super) const THIRD: StepIndex = StepIndex(2);

/// Three steps, of which only the second rests on the first.
pub(super) fn template(name: &str) -> Arc<TaskTemplate> {
    let template = TaskTemplate::builder(name)
        .step(StepTemplate::new("first"))
        .step(StepTemplate::new("second").after("first"))
        .step(StepTemplate::new("third"));
    Arc::new(template.build().unwrap())
}

pub(super) fn new_task(template: &Arc<TaskTemplate>) -> NewTask {
    NewTask {
        id: TaskId::new(),
        template: template.clone(),
        context: Json::parse(r#"{"number":1}"#).unwrap(),
        idempotency_key: None,
        delay: Duration::ZERO,
        priority: Priority::Normal,
    }
}

pub(super) fn keyed(template: &Arc<TaskTemplate>, key: &str) -> NewTask {
    NewTask { idempotency_key: Some(key.to_owned()), ..new_task(template) }
}

/// Stores a task that nobody owns yet.
pub(super) async fn queued(store: &dyn StateStore, template: &Arc<TaskTemplate>) -> TaskId {
    let task = new_task(template);
    let id = task.id;
    let created = store.create(vec![task], None).await.unwrap();
    assert!(matches!(created[..], [Created::New { claimed: None, .. }]), "{created:?}");
    id
}

/// Stores a task that a worker owns.
pub(super) async fn owned(
    store: &dyn StateStore,
    worker: WorkerId,
    template: &Arc<TaskTemplate>,
) -> StoredTask {
    let task = new_task(template);
    let id = task.id;
    let created = store.create(vec![task], Some(worker)).await.unwrap();
    assert!(matches!(created[..], [Created::New { claimed: Some(_), .. }]), "{created:?}");
    load(store, id).await
}

pub(super) fn beat(worker: WorkerId, lease: Option<Duration>) -> Heartbeat {
    Heartbeat { worker, name: "conformance".to_owned(), lease, spare: 4, running: Vec::new() }
}

/// A worker with a long lease.
pub(super) async fn living(store: &dyn StateStore) -> WorkerId {
    let worker = WorkerId::new();
    let renewed = store.renew(beat(worker, Some(LONG))).await.unwrap();
    assert!(matches!(renewed, Renewed::Until { .. }), "{renewed:?}");
    worker
}

/// Lets a worker's lease run out and has it taken over.
pub(super) async fn lose(store: &dyn StateStore, worker: WorkerId) {
    expire(store, worker).await;
    let mut dead = Vec::new();
    until("the lease has run out", async || {
        dead.extend(store.take_over(1000).await.unwrap());
        dead.contains(&worker).then_some(())
    })
    .await;
}

/// Gives a worker a lease that runs out at once.
pub(super) async fn expire(store: &dyn StateStore, worker: WorkerId) {
    let renewed = store.renew(beat(worker, Some(Duration::from_millis(1)))).await.unwrap();
    assert!(matches!(renewed, Renewed::Until { .. }), "{renewed:?}");
}

pub(super) fn routes(of: &[Route]) -> Arc<BTreeSet<Route>> {
    Arc::new(of.iter().cloned().collect())
}

pub(super) fn request(worker: WorkerId, of: &[Route], tasks: usize, offers: usize) -> ClaimRequest {
    ClaimRequest { worker, routes: routes(of), tasks, offers, holding: None }
}

pub(super) async fn claim(store: &dyn StateStore, request: ClaimRequest) -> Work {
    match store.claim(request).await.unwrap() {
        Claimed::Work(work) => work,
        Claimed::LeaseLost => panic!("the lease is alive, and the store says that it is lost"),
    }
}

/// Claims tasks of one template.
pub(super) async fn claim_of(
    store: &dyn StateStore,
    worker: WorkerId,
    template: &TaskTemplate,
    tasks: usize,
) -> Work {
    claim(store, request(worker, &[Route::of(template)], tasks, 0)).await
}

pub(super) fn ids(tasks: &[StoredTask]) -> Vec<TaskId> {
    tasks.iter().map(|task| task.id).collect()
}

pub(super) async fn load(store: &dyn StateStore, id: TaskId) -> StoredTask {
    store.load(id).await.unwrap().expect("the task is stored")
}

pub(super) fn by(worker: WorkerId) -> Author {
    Author::Worker(worker)
}

pub(super) fn operator() -> Author {
    Author::Operator("alice".to_owned())
}

/// The row of a step that succeeded.
pub(super) fn completed(step: StepIndex, seq: u32) -> Transition {
    let result = Json::parse(format!(r#"{{"step":{},"seq":{seq}}}"#, step.0)).unwrap();
    Transition {
        step: Some(step),
        seq,
        attempt: seq,
        ran_for: Duration::from_millis(7),
        what: Occurrence::Completed { result },
    }
}

/// What an operator did for a reason.
pub(super) fn order(action: ActionKind, reason: &str) -> Occurrence {
    let (before, after) = (Aspect::of(TaskState::Pending), Aspect::of(TaskState::Cancelled));
    let (reason, ended_at) = (reason.to_owned(), None);
    let operation = Operation { action, step: None, reason, key: None, ended_at, before, after };
    Occurrence::Operated(Box::new(operation))
}

/// A row of the task's own log.
pub(super) fn cancelled(seq: u32) -> Transition {
    let what = order(ActionKind::Cancel, "no longer wanted");
    Transition { step: None, seq, attempt: 0, ran_for: Duration::ZERO, what }
}

/// A change of a task that its owner made.
pub(super) fn change(task: &StoredTask, rows: Vec<Transition>, then: Then) -> TaskChange {
    let assumes = Assumption::Owned { version: task.version };
    let (offers, degraded, review) = (Vec::new(), None, false);
    TaskChange { task: task.id, assumes, rows, offers, then, degraded, review }
}

/// A change of a task that an operator made.
pub(super) fn operated(task: &StoredTask, rows: Vec<Transition>, then: Then) -> TaskChange {
    let assumes = Assumption::Unmoved { version: task.version };
    TaskChange { assumes, ..change(task, rows, then) }
}

pub(super) fn queue(template: &TaskTemplate, wake_in: Duration) -> Then {
    Then::Queue { state: TaskState::InProgress, wake_in, route: Route::of(template) }
}

pub(super) fn end(state: TaskState) -> Then {
    Then::End { state }
}

/// An offer of the first row of a step.
pub(super) fn offer(template: &TaskTemplate, step: StepIndex, needs: &[StepIndex]) -> NewOffer {
    let route = helpers(template);
    NewOffer { step, seq: 1, route, needs: needs.to_vec() }
}

/// The route of those who help with offered steps.
pub(super) fn helpers(template: &TaskTemplate) -> Route {
    Route::to_handler(template, "help")
}

pub(super) fn offering(task: &StoredTask, offers: Vec<NewOffer>) -> TaskChange {
    TaskChange { offers, ..change(task, Vec::new(), Then::Keep) }
}

/// The settlement of an offered step.
pub(super) fn settlement(task: TaskId, step: StepIndex) -> TaskChange {
    let assumes = Assumption::OfferHeld { step, seq: 1 };
    let rows = vec![completed(step, 1)];
    let (offers, degraded, review) = (Vec::new(), None, false);
    TaskChange { task, assumes, rows, offers, then: Then::Keep, degraded, review }
}

pub(super) async fn commit(
    store: &dyn StateStore,
    author: &Author,
    changes: Vec<TaskChange>,
) -> Vec<Applied> {
    match store.commit(author, changes).await.unwrap() {
        Committed::Changes { applied, .. } => applied,
        Committed::LeaseLost => panic!("the lease is alive, and the store says that it is lost"),
    }
}

/// Commits one change, which must be applied.
pub(super) async fn apply(store: &dyn StateStore, author: &Author, change: TaskChange) {
    let applied = commit(store, author, vec![change]).await;
    assert_eq!(applied, [Applied::Yes], "what the change assumed is true");
}

/// Commits one change, which must be left out.
pub(super) async fn refuse(store: &dyn StateStore, author: &Author, change: TaskChange) {
    let applied = commit(store, author, vec![change]).await;
    assert_eq!(applied, [Applied::Conflict], "what the change assumed is false");
}

/// Looks until there is something to see.
pub(super) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until tasks that are queued for a moment from now may be claimed.
pub(super) async fn due(store: &dyn StateStore, tasks: &[TaskId]) {
    for id in tasks {
        until("a queued task is due", async || {
            let task = load(store, *id).await;
            task.wake_at.is_some_and(|at| at <= task.now).then_some(())
        })
        .await;
    }
}

/// A change that writes a document.
pub(super) fn put(
    collection: Collection,
    key: &str,
    expects: Option<u64>,
    state: &str,
) -> DocumentChange {
    let content = Content { state: state.to_owned(), due_in: None, body: Json::null() };
    DocumentChange { collection, key: key.to_owned(), expects, put: Some(content) }
}

pub(super) async fn write(store: &dyn StateStore, changes: Vec<DocumentChange>) -> Vec<Applied> {
    store.write_documents(changes).await.unwrap().applied
}

pub(super) async fn read(store: &dyn StateStore, query: DocumentQuery) -> Vec<Document> {
    store.read_documents(query).await.unwrap().found
}

/// A page of a list of documents.
pub(super) async fn page(
    store: &dyn StateStore,
    collection: Collection,
    state: Option<&str>,
    after: Option<(Timestamp, String)>,
    limit: usize,
) -> Vec<Document> {
    let state = state.map(str::to_owned);
    read(store, DocumentQuery::List { collection, state, after, limit }).await
}
