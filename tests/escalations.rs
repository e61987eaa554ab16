//! Escalations on the databases: they outlive the process that raised them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tasker::escalation::{Delivery, Escalation, SinkError, sink_fn};
use tasker::{
    EscalationQuery, EscalationState, Operator, RetryPolicy, SqliteStore, StateStore, StepContext,
    StepError, StepTemplate, TaskId, TaskRequest, TaskTemplate, Tasker, Workflow, step_fn,
};
use tasker_postgres::PostgresStore;
use tasker_postgres_kit::Server;
use tokio::sync::mpsc;

/// Nothing takes this long, whatever else the machine is about.
const LIMIT: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_millis(600);

/// One step that fails for good beside one that takes too long.
fn workflow() -> Workflow {
    let template = TaskTemplate::builder("order")
        .step(StepTemplate::new("charge").retry(RetryPolicy::none()))
        .step(StepTemplate::new("wait").expected_within(Duration::from_millis(300)))
        .build()
        .unwrap();
    Workflow::new(template)
        .step(
            "charge",
            step_fn(|_: StepContext| async {
                Err::<(), _>(StepError::permanent("CARD_DECLINED", "the card was declined"))
            }),
        )
        .step("wait", step_fn(|_: StepContext| std::future::pending::<Result<(), _>>()))
}

/// A process that hears of escalations, and takes them or does not.
fn process(
    store: Arc<dyn StateStore>,
    takes: bool,
) -> (Tasker, mpsc::UnboundedReceiver<Escalation>) {
    let (told, hears) = mpsc::unbounded_channel();
    let pager = sink_fn("pager", move |escalation: Escalation| {
        let _ = told.send(escalation);
        async move { if takes { Ok(()) } else { Err(SinkError::new("the line is busy")) } }
    });
    let builder = Tasker::builder_on(store).register(workflow()).escalate_to(pager);
    (builder.build().unwrap(), hears)
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.expect("it happens in time")
}

async fn listed(tasker: &Tasker) -> Vec<Escalation> {
    tasker.escalations(EscalationQuery::default()).await.unwrap().escalations
}

fn told(escalation: &Escalation) -> Option<&Delivery> {
    escalation.deliveries.get("pager")
}

async fn are_told_after_a_crash<F: Future<Output = Arc<dyn StateStore>>>(open: impl Fn() -> F) {
    let (tasker, mut hears) = process(open().await, false);
    let worker = tasker.worker().lease(LEASE).start();
    let id: TaskId = tasker.submit(TaskRequest::new("order", &()).unwrap()).await.unwrap().id;
    in_time(hears.recv()).await.unwrap();
    // Once the failure is on record, the next attempt is due soon.
    in_time(async {
        while !listed(&tasker)
            .await
            .iter()
            .any(|it| told(it).is_some_and(|it| it.last_error.is_some()))
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(worker);
    drop(tasker);

    let (tasker, mut hears) = process(open().await, true);
    let worker = tasker.worker().lease(LEASE).start();
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        let told = in_time(hears.recv()).await.unwrap();
        assert_eq!(told.incident.task(), Some(id));
        kinds.push((told.incident.kind(), told.step.unwrap()));
    }
    kinds.sort_unstable();
    let [charge, wait] = ["charge", "wait"].map(str::to_owned);
    assert_eq!(kinds, [("step_failed", charge), ("step_overdue", wait)]);
    in_time(async {
        let all_have_it = |found: &[Escalation]| {
            found.iter().all(|it| told(it).is_some_and(|it| it.delivered_at.is_some()))
        };
        while !all_have_it(&listed(&tasker).await) {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let ada = Operator::new("ada", "given up");
    let key = listed(&tasker).await[0].key.clone();
    tasker.acknowledge(&key, &ada).await.unwrap();
    tasker.cancel(id, &ada).await.unwrap();
    let settled = listed(&tasker).await;
    assert_eq!(settled.len(), 2);
    assert!(settled.iter().all(|it| it.state == EscalationState::Resolved), "{settled:?}");
    // Whoever was told of them is told that.
    let mut over = Vec::new();
    while over.len() < 2 {
        let told = in_time(hears.recv()).await.unwrap();
        let by = told.resolved.map(|seen| (seen.by, seen.note));
        assert_eq!(by, Some(("ada".to_owned(), "given up".to_owned())));
        over.push(told.key);
    }
    over.sort_unstable();
    let mut keys: Vec<_> = settled.into_iter().map(|it| it.key).collect();
    keys.sort_unstable();
    assert_eq!(over, keys);
    worker.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn on_sqlite_they_are_told_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let file = &file;
    are_told_after_a_crash(|| async move {
        Arc::new(SqliteStore::open(file).await.unwrap()) as Arc<dyn StateStore>
    })
    .await;
}

#[tokio::test]
async fn on_postgresql_they_are_told_after_a_crash() {
    let schema = Server::shared().await.unwrap().schema();
    let schema = &schema;
    are_told_after_a_crash(|| async move {
        let options = PostgresStore::options(schema.url()).schema(schema.name());
        Arc::new(options.open().await.unwrap()) as Arc<dyn StateStore>
    })
    .await;
}
