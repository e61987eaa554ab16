//! Workers that come and go: shutdown, a lost lease, tasks that kill their workers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tasker_core::decide::MAX_DELIVERIES;
use tasker_core::history::{Author, Occurrence};
use tasker_core::store::{ClaimRequest, Claimed, Heartbeat, Route, StateStore, StoredTask};
use tasker_core::{
    EventKind, MemoryStore, Operator, StepContext, StepState, StepTemplate, TaskId, TaskRequest,
    TaskState, TaskTemplate, Tasker, Worker, WorkerId, Workflow, step_fn,
};
use tokio::sync::Notify;

const LONG: Duration = Duration::from_secs(24 * 3600);

/// A first step that takes ten minutes on its first delivery only, and a second one.
struct Slow {
    workflow: Workflow,
    deliveries: Arc<AtomicU32>,
    began: Arc<Notify>,
    /// Ends the ten minutes.
    finish: Arc<Notify>,
}

fn slow() -> Slow {
    let template = TaskTemplate::builder("slow")
        .step(StepTemplate::new("first").timeout(LONG))
        .step(StepTemplate::new("second").after("first"))
        .build()
        .unwrap();
    let (deliveries, began) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    let finish = Arc::new(Notify::new());
    let (count, begin, end) = (deliveries.clone(), began.clone(), finish.clone());
    let first = step_fn(move |step: StepContext| {
        let delivery = count.fetch_add(1, Ordering::SeqCst) + 1;
        begin.notify_one();
        let end = end.clone();
        async move {
            if delivery == 1 {
                // Over after ten minutes, told or not.
                let _ = tokio::time::timeout(Duration::from_secs(600), end.notified()).await;
            }
            Ok((delivery, step.idempotency_key().to_owned()))
        }
    });
    let second = step_fn(|_: StepContext| async { Ok(()) });
    let workflow = Workflow::new(template).step("first", first).step("second", second);
    Slow { workflow, deliveries, began, finish }
}

fn tasker(store: &MemoryStore, workflow: &Workflow) -> Tasker {
    Tasker::builder(store.clone()).register(workflow.clone()).build().unwrap()
}

async fn submit(tasker: &Tasker, task: &str) -> TaskId {
    tasker.submit(TaskRequest::new(task, &()).unwrap()).await.unwrap().id
}

async fn stored(store: &MemoryStore, id: TaskId) -> StoredTask {
    store.load(id).await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_costs_no_attempt_and_gives_back_at_once() {
    let (store, slow) = (MemoryStore::new(), slow());
    let here = tasker(&store, &slow.workflow);
    let worker = here.worker().start();
    let id = submit(&here, "slow").await;
    slow.began.notified().await;
    worker.shutdown(Duration::from_secs(1)).await;
    let given_back = stored(&store, id).await;
    assert_eq!((given_back.owner, given_back.rows.len()), (None, 0), "no attempt, no lost worker");
    assert!(given_back.wake_at.is_some_and(|at| at <= given_back.now), "another may have it");

    let there = tasker(&store, &slow.workflow);
    let other = there.worker().start();
    let status = there.wait(id, LONG).await.unwrap();
    assert_eq!(status.state, TaskState::Complete);
    assert_eq!(status.step("first").unwrap().attempts, 1);
    assert_eq!(slow.deliveries.load(Ordering::SeqCst), 2);
    other.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_what_runs_end_and_begins_nothing() {
    let (store, slow) = (MemoryStore::new(), slow());
    let tasker = tasker(&store, &slow.workflow);
    let worker = tasker.worker().start();
    let id = submit(&tasker, "slow").await;
    slow.began.notified().await;
    worker.shutdown(LONG).await;
    let status = tasker.status(id).await.unwrap().unwrap();
    assert_eq!(status.step("first").unwrap().state, StepState::Complete);
    let second = status.step("second").unwrap();
    assert_eq!((second.state, second.attempts), (StepState::Ready, 0));
    assert_eq!(stored(&store, id).await.owner, None);
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_reaches_what_still_runs_during_a_shutdown() {
    let (store, slow) = (MemoryStore::new(), slow());
    let tasker = tasker(&store, &slow.workflow);
    let worker = tasker.worker().start();
    let id = submit(&tasker, "slow").await;
    slow.began.notified().await;
    let began = tokio::time::Instant::now();
    let cancel = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        tasker.cancel(id, &Operator::new("alice", "not wanted any more")).await.unwrap();
    };
    tokio::join!(worker.shutdown(LONG), cancel);
    // Paused time makes this exact: the ten minutes of the step are not waited for.
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(tasker.status(id).await.unwrap().unwrap().state, TaskState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_report_after_a_lost_lease_is_refused_and_counted() {
    let (store, slow) = (MemoryStore::new(), slow());
    let here = tasker(&store, &slow.workflow);
    let stalled = here.worker().lease(LONG).start();
    let id = submit(&here, "slow").await;
    slow.began.notified().await;
    let owner = stored(&store, id).await.owner.unwrap();
    // The handler ends, and before anybody hears of it the lease is gone.
    slow.finish.notify_one();
    retire(&store, owner).await;

    let there = tasker(&store, &slow.workflow);
    let other = there.worker().start();
    let status = there.wait(id, LONG).await.unwrap();
    assert_eq!(status.state, TaskState::Complete);
    let (delivery, key): (u32, String) =
        status.step("first").unwrap().result.as_ref().unwrap().to().unwrap();
    assert_eq!(delivery, 2, "the outcome is the new owner's");
    assert_eq!(key, format!("{id}:first"));

    assert_eq!(stalled.rejected_reports(), 1, "the late report is refused");
    let task = stored(&store, id).await;
    let first = task.rows.iter().filter(|row| row.transition.step.is_some_and(|it| it.0 == 0));
    assert_eq!(first.count(), 1);
    assert!(stalled.is_registered(), "it goes on under another name");
    stalled.shutdown(LONG).await;
    other.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_workers_task_is_taken_over_within_its_lease_and_a_little() {
    let (store, slow) = (MemoryStore::new(), slow());
    let here = tasker(&store, &slow.workflow);
    let lease = Duration::from_secs(30);
    let doomed = here.worker().lease(lease).start();
    let id = submit(&here, "slow").await;
    slow.began.notified().await;
    let there = tasker(&store, &slow.workflow);
    let other = there.worker().lease(lease).start();
    let died = tokio::time::Instant::now();
    drop(doomed);
    let status = there.wait(id, LONG).await.unwrap();
    // The other one was told when to look. Paused time makes this exact.
    assert!(died.elapsed() <= lease + Duration::from_secs(1), "{:?}", died.elapsed());
    assert_eq!(status.state, TaskState::Complete);
    assert_eq!(status.step("first").unwrap().attempts, 1);
    let lost = |row: &&tasker_core::history::Recorded| {
        matches!(row.transition.what, Occurrence::WorkerLost { .. })
    };
    assert_eq!(stored(&store, id).await.rows.iter().filter(lost).count(), 1);
    other.shutdown(LONG).await;
}

fn beat(worker: WorkerId, lease: Option<Duration>) -> Heartbeat {
    Heartbeat { worker, name: "test".to_owned(), lease, spare: 0, running: Vec::new() }
}

/// Takes a worker's life from outside, as a take-over does.
async fn retire(store: &MemoryStore, worker: WorkerId) {
    store.renew(beat(worker, None)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_keeps_killing_its_workers_is_quarantined() {
    let (store, slow) = (MemoryStore::new(), slow());
    let tasker = tasker(&store, &slow.workflow);
    let id = submit(&tasker, "slow").await;
    let route = Route::of(&stored(&store, id).await.template);
    for _ in 0..MAX_DELIVERIES {
        let worker = WorkerId::new();
        store.renew(beat(worker, Some(LONG))).await.unwrap();
        let routes = Arc::new(BTreeSet::from([route.clone()]));
        let request = ClaimRequest { worker, routes, tasks: 1, offers: 0, holding: None };
        let claimed = store.claim(request).await.unwrap();
        assert!(matches!(claimed, Claimed::Work(work) if work.tasks.len() == 1));
        retire(&store, worker).await;
    }
    let mut events = tasker.events();
    let worker = tasker.worker().start();
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!(status.state, TaskState::Error);
    assert_eq!(slow.deliveries.load(Ordering::SeqCst), 0, "it is delivered no more");
    let quarantined = |row: &tasker_core::history::Recorded| {
        row.transition.what == Occurrence::Quarantined { deliveries: MAX_DELIVERIES }
    };
    assert!(stored(&store, id).await.rows.iter().any(quarantined));
    let escalated = std::iter::from_fn(|| events.try_recv().ok());
    let escalated = escalated.filter(|it| matches!(it.kind, EventKind::TaskEscalated { .. }));
    assert_eq!(escalated.count(), 1, "a person is called, once");

    tasker.retry(id, &Operator::new("alice", "the handler is mended")).await.unwrap();
    assert_eq!(tasker.wait(id, LONG).await.unwrap().state, TaskState::Complete);
    worker.shutdown(LONG).await;
}

const WIDTH: usize = 12;

/// Parts that take a minute each, and their sum.
fn wide() -> Workflow {
    let mut template = TaskTemplate::builder("wide");
    let names: Vec<_> = (0..WIDTH).map(|number| format!("part {number}")).collect();
    for name in &names {
        template = template.step(StepTemplate::new(name).handler("part"));
    }
    let template = template.step(StepTemplate::new("sum").after_all(names)).build().unwrap();
    let part = step_fn(|_: StepContext| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok(1u32)
    });
    let sum = step_fn(|step: StepContext| async move {
        let parts = (0..WIDTH).map(|number| step.result_of::<u32>(&format!("part {number}")));
        parts.sum::<Result<u32, _>>()
    });
    Workflow::new(template).step("part", part).step("sum", sum)
}

/// Two workers that know what the other could run.
async fn pair(here: &Tasker, there: &Tasker) -> [Worker; 2] {
    let workers = [here.worker().slots(2).start(), there.worker().slots(2).start()];
    tokio::time::sleep(Duration::from_secs(30)).await;
    workers
}

#[tokio::test(start_paused = true)]
async fn two_workers_share_one_wide_task() {
    let (store, workflow) = (MemoryStore::new(), wide());
    let (here, there) = (tasker(&store, &workflow), tasker(&store, &workflow));
    let workers = pair(&here, &there).await;
    let id = submit(&here, "wide").await;
    let status = here.wait(id, LONG).await.unwrap();
    assert_eq!(status.state, TaskState::Complete);
    assert_eq!(status.step("sum").unwrap().result.as_ref().unwrap().as_str(), "12");
    let rows = stored(&store, id).await.rows;
    assert_eq!(rows.len(), WIDTH + 1, "each step is recorded once");
    let authors: Vec<_> = rows.iter().map(|row| row.author.clone()).collect();
    let by = |author: &Author| authors.iter().filter(|it| *it == author).count();
    assert!(authors.iter().all(|author| by(author) >= 2), "both have run some: {authors:?}");
    assert!(authors.iter().any(|author| *author != authors[0]), "not one alone");
    for worker in workers {
        assert_eq!(worker.rejected_reports(), 0);
        worker.shutdown(LONG).await;
    }
}

#[test]
fn either_worker_may_go_at_any_time_while_they_share_a_task() {
    // At many moments of the task's life: the owner or the helper dies, or is shut down.
    for second in (0..260).step_by(13) {
        for (owner_goes, dies) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().start_paused(true).build().unwrap();
            runtime.block_on(one_goes(Duration::from_secs(second), owner_goes, dies));
        }
    }
}

async fn one_goes(after: Duration, owner_goes: bool, dies: bool) {
    let scene = format!("{after:?} {owner_goes} {dies}");
    let (store, workflow) = (MemoryStore::new(), wide());
    let (here, there) = (tasker(&store, &workflow), tasker(&store, &workflow));
    let [owner, helper] = pair(&here, &there).await;
    let id = submit(&here, "wide").await;
    tokio::time::sleep(after).await;
    let (goes, stays) = if owner_goes { (owner, helper) } else { (helper, owner) };
    if dies {
        drop(goes);
    } else {
        goes.shutdown(Duration::from_secs(5)).await;
    }
    let status = there.wait(id, LONG).await.unwrap_or_else(|error| panic!("{scene}: {error}"));
    assert_eq!(status.state, TaskState::Complete, "{scene}");
    let rows = stored(&store, id).await.rows;
    let steps = rows.iter().filter(|row| row.transition.step.is_some());
    assert_eq!(steps.count(), WIDTH + 1, "{scene}: each step is recorded once, at its first try");
    if !dies {
        assert_eq!(rows.len(), WIDTH + 1, "{scene}: a shutdown is no loss of a worker");
    }
    stays.shutdown(LONG).await;
}
