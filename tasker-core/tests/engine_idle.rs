//! What a worker asks of its store while there is nothing to do, and how soon it sees a death.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use tasker_core::testing::FaultyStore;
use tasker_core::{
    MemoryStore, StepContext, StepTemplate, TaskId, TaskRequest, TaskState, TaskTemplate, Tasker,
    Worker, Workflow, step_fn,
};
use tokio::time::Instant;

const LONG: Duration = Duration::from_secs(24 * 3600);
const LEASE: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
const A_MOMENT: Duration = Duration::from_secs(1);

/// A step that never ends with a worker that does not live on.
fn tasker(store: &FaultyStore<MemoryStore>, hangs: bool) -> Tasker {
    let step = StepTemplate::new("step").timeout(LONG);
    let template = TaskTemplate::builder("task").step(step).build().unwrap();
    let step = step_fn(move |_: StepContext| async move {
        if hangs {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let workflow = Workflow::new(template).step("step", step);
    Tasker::builder(store.clone()).register(workflow).build().unwrap()
}

fn faulty(store: &MemoryStore) -> FaultyStore<MemoryStore> {
    FaultyStore::new(store.clone())
}

/// A worker that has a task which it does not get done.
async fn doomed(store: &FaultyStore<MemoryStore>) -> (Worker, TaskId) {
    let tasker = tasker(store, true);
    let worker = tasker.worker().slots(1).start();
    while !worker.is_registered() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let request = TaskRequest::new("task", &()).unwrap();
    (worker, tasker.submit(request).await.unwrap().id)
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_asks_its_store_at_most_ten_times_a_minute() {
    let memory = MemoryStore::new();
    let stores = [faulty(&memory), faulty(&memory), faulty(&memory)];
    let workers: Vec<_> = stores.iter().map(|it| tasker(it, false).worker().start()).collect();
    tokio::time::sleep(MINUTE).await;
    let before: Vec<_> = stores.iter().map(FaultyStore::calls).collect();
    tokio::time::sleep(60 * MINUTE).await;
    for (store, before) in stores.iter().zip(before) {
        let calls = store.calls() - before;
        assert!(calls <= 600, "{calls} calls in an hour");
        assert!(calls >= 180, "it gives its sign of life: {calls} calls in an hour");
    }
    for worker in workers {
        worker.shutdown(LONG).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_begins_at_once_when_there_is_work() {
    let store = faulty(&MemoryStore::new());
    let (here, there) = (tasker(&store, false), tasker(&store, false));
    let worker = here.worker().start();
    for pause in [0, 1, 7, 3600, 3601] {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        let began = Instant::now();
        let id = there.submit(TaskRequest::new("task", &()).unwrap()).await.unwrap().id;
        let mut events = here.events();
        while there.status(id).await.unwrap().unwrap().state != TaskState::Complete {
            events.recv().await.unwrap();
        }
        // Paused time makes this exact: nothing was waited for but the claim's moment.
        assert!(began.elapsed() < Duration::from_millis(10), "{pause}: {:?}", began.elapsed());
    }
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn each_of_several_dead_workers_is_taken_over_in_time() {
    let memory = MemoryStore::new();
    let survivor = tasker(&faulty(&memory), false);
    let worker = survivor.worker().start();
    // They die one after the other, at any moment between two signs of life of the survivor.
    let mut dead = Vec::new();
    for pause in [0, 300, 700, 1_500, 4_000, 9_990] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        // A worker with one slot does not touch the task of the one before.
        let (worker, id) = doomed(&faulty(&memory)).await;
        drop(worker);
        dead.push((id, Instant::now()));
    }
    for (id, died) in dead {
        let status = survivor.wait(id, LONG).await.unwrap();
        assert_eq!(status.state, TaskState::Complete);
        let ended = status.ended_at.unwrap().duration_since(status.created_at);
        let took = Duration::try_from(ended).unwrap();
        assert!(died.elapsed() >= took);
        assert!(took <= LEASE + A_MOMENT, "taken over after {took:?}");
        // The worker had registered a little before the task was stored.
        assert!(took + A_MOMENT >= LEASE, "not before its lease has run out: {took:?}");
    }
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn more_dead_workers_than_one_look_takes_are_taken_over_in_time() {
    let memory = MemoryStore::new();
    let survivor = tasker(&faulty(&memory), false);
    let mut dead = Vec::new();
    for _ in 0..50 {
        let (worker, id) = doomed(&faulty(&memory)).await;
        drop(worker);
        dead.push(id);
    }
    let began = Instant::now();
    let worker = survivor.worker().start();
    for id in dead {
        survivor.wait(id, LONG).await.unwrap();
    }
    assert!(began.elapsed() <= LEASE + A_MOMENT, "{:?}", began.elapsed());
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_does_not_make_a_worker_forget_to_look() {
    // Away from any moment on, for a number of calls.
    for away_from in (1..32).step_by(3) {
        for away_for in [1, 2, 5] {
            let memory = MemoryStore::new();
            let store = faulty(&memory);
            let survivor = tasker(&store, false);
            let worker = survivor.worker().start();
            let (doomed, id) = doomed(&faulty(&memory)).await;
            drop(doomed);
            let died = Instant::now();
            tokio::time::sleep(Duration::from_secs(away_from)).await;
            store.fail_next(away_for);
            let onlooker = tasker(&faulty(&memory), false);
            let status = onlooker.wait(id, LONG).await.unwrap();
            assert_eq!(status.state, TaskState::Complete);
            // The looks go on a second apart; the claims share the failures with them.
            let late = died.elapsed().saturating_sub(LEASE);
            let scene = format!("away from {away_from} s for {away_for} calls");
            assert!(late <= A_MOMENT * (away_for as u32 + 1), "{scene}: {late:?} late");
            worker.shutdown(LONG).await;
        }
    }
}
