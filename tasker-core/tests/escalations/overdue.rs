use tasker_core::history::Author;
use tasker_core::store::{Assumption, Collection, DocumentQuery, TaskChange, Then};
use tasker_core::testing::{FaultyStore, Loss};
use tasker_core::{Action, MemoryStore, OperateError, Operator, TaskState};

use super::*;

fn sentences(pager: &Pager, began: Instant) -> Vec<(u64, &'static str)> {
    let told = pager.told();
    let told = told.iter().map(|(at, it)| ((*at - began).as_secs(), it.incident.kind()));
    told.collect()
}

async fn alarms(store: &Arc<dyn StateStore>) -> usize {
    let (collection, state, after) = (Collection::Alarm, None, None);
    let query = DocumentQuery::List { collection, state, after, limit: 0 };
    store.read_documents(query).await.unwrap().found.len()
}

#[tokio::test(start_paused = true)]
async fn a_step_and_a_task_that_take_too_long_are_told_once_each() {
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
    let pager = Pager::new("pager", Mood::Well);
    let tasker = tasker(&store, &[&pager]);
    let worker = tasker.worker().start();
    let began = Instant::now();
    let id = submit(&tasker, "slow").await;
    tokio::time::sleep(LONG / 2).await;
    assert_eq!(sentences(&pager, began), [(600, "step_overdue"), (3600, "task_overdue")]);
    let told: Vec<_> = pager.told().iter().map(|(_, it)| it.to_string()).collect();
    let of = format!("task {id} (`default/slow@0.1.0`)");
    assert_eq!(
        told,
        [
            format!("step `wait` of {of} has not ended within 600s"),
            format!("{of} has not ended within 3600s"),
        ]
    );
    assert_eq!(alarms(&store).await, 0, "there is nothing more to look for");
    worker.shutdown(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ended_in_time_is_not_told() {
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
    let pager = Pager::new("pager", Mood::Well);
    let tasker = tasker(&store, &[&pager]);
    let worker = tasker.worker().start();
    let id = submit(&tasker, "slow").await;
    assert_eq!(alarms(&store).await, 1);
    tasker.cancel(id, &Operator::new("ada", "a mistake")).await.unwrap();
    tokio::time::sleep(LONG).await;
    assert_eq!((pager.times(), alarms(&store).await), (0, 0));
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_nobody_runs_is_told_and_so_is_a_paused_one() {
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
    let pager = Pager::new("pager", Mood::Well);
    let submitter = tasker(&store, &[]);
    let began = Instant::now();
    let id = submit(&submitter, "slow").await;
    let stored = store.load(id).await.unwrap().unwrap();
    let pause = TaskChange {
        task: id,
        assumes: Assumption::Unmoved { version: stored.version },
        rows: Vec::new(),
        offers: Vec::new(),
        then: Then::Hold { state: TaskState::Paused },
        degraded: None,
        review: false,
    };
    let author = Author::Operator("ada".to_owned());
    store.commit(&author, vec![pause]).await.unwrap();
    let worker = tasker(&store, &[&pager]).worker().start();
    tokio::time::sleep(LONG / 2).await;
    assert_eq!(sentences(&pager, began), [(600, "step_overdue"), (3600, "task_overdue")]);
    assert_eq!(submitter.status(id).await.unwrap().unwrap().state, TaskState::Paused);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_delayed_task_has_its_time_from_when_it_may_start() {
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
    let pager = Pager::new("pager", Mood::Well);
    let tasker = tasker(&store, &[&pager]);
    let worker = tasker.worker().start();
    let began = Instant::now();
    let request = TaskRequest::new("slow", &()).unwrap().delay(Duration::from_secs(1000));
    tasker.submit(request).await.unwrap();
    tokio::time::sleep(LONG / 2).await;
    assert_eq!(sentences(&pager, began), [(1600, "step_overdue"), (4600, "task_overdue")]);
    worker.shutdown(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn a_delayed_task_that_is_retried_is_not_overdue_by_its_delay() {
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
    let pager = Pager::new("pager", Mood::Well);
    let step = StepTemplate::new("charge").expected_within(Duration::from_secs(60));
    let template = TaskTemplate::builder("order").deadline(Duration::from_secs(3600));
    let template = template.step(step.retry(RetryPolicy::none()).timeout(LONG)).build().unwrap();
    let charge = step_fn(|step: StepContext| async move {
        match step.attempt() {
            1 => Err(StepError::permanent("CARD_DECLINED", "the card was declined")),
            _ => std::future::pending::<Result<(), _>>().await,
        }
    });
    let workflow = Workflow::new(template).step("charge", charge);
    let builder = Tasker::builder_on(store.clone()).register(workflow);
    let tasker = builder.escalate_to(pager.clone()).build().unwrap();
    let worker = tasker.worker().start();
    let began = Instant::now();
    let request = TaskRequest::new("order", &()).unwrap().delay(Duration::from_secs(10_000));
    let id = tasker.submit(request).await.unwrap().id;
    // Whoever looks whether it takes too long finds that it has ended.
    tokio::time::sleep(Duration::from_secs(10_500)).await;
    tasker.retry(id, &Operator::new("ada", "another card")).await.unwrap();
    tokio::time::sleep(LONG / 2).await;
    // The retry has answered what was raised first.
    let told = [
        (10_000, "step_failed"),
        (10_500, "step_failed"),
        (10_560, "step_overdue"),
        (13_600, "task_overdue"),
    ];
    assert_eq!(sentences(&pager, began), told);
    worker.shutdown(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn an_alarm_is_not_lost_with_the_process_that_was_to_set_it() {
    let memory = MemoryStore::new();
    let store: Arc<dyn StateStore> = Arc::new(memory.clone());
    let pager = Pager::new("pager", Mood::Well);
    let here = tasker(&store, &[&pager]);
    let worker = here.worker().start();
    let began = Instant::now();
    let id = submit(&here, "slow").await;
    tokio::time::sleep(Duration::from_secs(4000)).await;
    assert_eq!(alarms(&store).await, 0, "there was nothing more to look for");
    let faulty = FaultyStore::new(memory);
    let there = Tasker::builder(faulty.clone()).build().unwrap();
    // The call after the one that carries it out is lost.
    let carried_out = 2;
    faulty.fail_call(carried_out + 1, Loss::OfCall);
    let again = Action::RetryFrom { step: "wait".to_owned() };
    let lost = there.operate(id, again, &Operator::new("ada", "again")).await.unwrap_err();
    assert!(matches!(lost, OperateError::Store(_)), "{lost}");
    assert_eq!(faulty.calls(), carried_out + 1);
    tokio::time::sleep(LONG / 2).await;
    // Both are over with the action, and so told again.
    let told = [
        (600, "step_overdue"),
        (3600, "task_overdue"),
        (4000, "step_overdue"),
        (4000, "task_overdue"),
        (4600, "step_overdue"),
    ];
    assert_eq!(sentences(&pager, began), told);
    worker.shutdown(Duration::ZERO).await;
}
