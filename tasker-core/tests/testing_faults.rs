//! A store that fails once, at every call in turn: the engine loses nothing.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tasker_core::history::Occurrence;
use tasker_core::store::StateStore;
use tasker_core::testing::{FaultyStore, Loss};
use tasker_core::{
    MemoryStore, OnFailure, RetryPolicy, StepContext, StepError, StepTemplate, SubmitError, TaskId,
    TaskRequest, TaskState, TaskTemplate, Tasker, Workflow, step_fn,
};

const LONG: Duration = Duration::from_secs(3600);

/// A diamond whose left step fails once and whose right step may fail for good, and does.
fn diamond(calls: &Arc<AtomicU32>) -> Workflow {
    let again = RetryPolicy::fixed(2, Duration::from_secs(30));
    let template = TaskTemplate::builder("diamond")
        .step(StepTemplate::new("top"))
        .step(StepTemplate::new("left").after("top").retry(again))
        .step(StepTemplate::new("right").after("top").on_failure(OnFailure::Continue))
        .step(StepTemplate::new("bottom").after_all(["left", "right"]))
        .build()
        .unwrap();
    let calls = calls.clone();
    Workflow::new(template)
        .step("top", step_fn(|_: StepContext| async { Ok(1) }))
        .step(
            "left",
            step_fn(move |step: StepContext| {
                calls.fetch_add(1, Ordering::SeqCst);
                async move {
                    if step.attempt() == 1 { Err(StepError::retryable("not yet")) } else { Ok(2) }
                }
            }),
        )
        .step(
            "right",
            step_fn(|_: StepContext| async { Err::<(), _>(StepError::permanent("NO", "never")) }),
        )
        .step("bottom", step_fn(|_: StepContext| async { Ok(3) }))
}

/// Submits until it is acknowledged, as a caller with an idempotency key would.
async fn submit(tasker: &Tasker, task: &str, key: &str) -> TaskId {
    for _ in 0..10 {
        let request = TaskRequest::new(task, &()).unwrap().idempotency_key(key);
        match tasker.submit(request).await {
            Ok(receipt) => return receipt.id,
            Err(SubmitError::Store(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the store fails once and no more");
}

/// The attempts of each step that are on record, each of which is there once.
async fn recorded(store: &MemoryStore, task: TaskId) -> BTreeMap<(usize, u32), &'static str> {
    let stored = store.load(task).await.unwrap().unwrap();
    let mut attempts = BTreeMap::new();
    for row in &stored.rows {
        let Some(step) = row.transition.step else {
            assert!(
                !matches!(row.transition.what, Occurrence::WorkerLost { .. }),
                "a failing call costs no worker its life"
            );
            continue;
        };
        let key = (step.get(), row.transition.attempt);
        let before = attempts.insert(key, row.transition.what.kind());
        assert_eq!(before, None, "attempt {key:?} is recorded once");
    }
    attempts
}

fn paused(test: impl Future<Output = bool>) -> bool {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(test)
}

/// Plays with a failure at each call in turn, until a play has no such call.
fn at_every_call(play: impl AsyncFn(FaultyStore<MemoryStore>, MemoryStore, String)) -> usize {
    for loss in [Loss::OfCall, Loss::OfAnswer] {
        for call in 1.. {
            let fired = paused(async {
                let memory = MemoryStore::new();
                let store = FaultyStore::new(memory.clone());
                store.fail_call(call, loss);
                play(store.clone(), memory, format!("{loss:?} {call}")).await;
                store.failures() > 0
            });
            if !fired {
                assert!(call > 5, "a play has some calls");
                if loss == Loss::OfAnswer {
                    return call;
                }
                break;
            }
        }
    }
    unreachable!()
}

#[test]
fn a_failure_at_any_call_costs_nothing() {
    at_every_call(async |store, memory, at| {
        let calls = Arc::new(AtomicU32::new(0));
        let tasker = Tasker::builder(store).register(diamond(&calls)).build().unwrap();
        // Looks through no faulty store, so that only calls of the engine are counted.
        let onlooker = Tasker::builder(memory.clone()).build().unwrap();
        let worker = tasker.worker().start();
        let mut tasks = Vec::new();
        for key in ["a", "b", "c"] {
            tasks.push(submit(&tasker, "diamond", key).await);
            tokio::task::yield_now().await;
        }
        for id in tasks {
            let status = onlooker.wait(id, LONG).await;
            let status = status.unwrap_or_else(|error| panic!("{at}: {error}"));
            assert_eq!((status.state, status.degraded), (TaskState::Complete, true), "{at}");
            let expected = [
                ((0, 1), "completed"),
                ((1, 1), "failed"),
                ((1, 2), "completed"),
                ((2, 1), "failed"),
                ((3, 1), "completed"),
            ];
            assert_eq!(recorded(&memory, id).await, BTreeMap::from(expected), "{at}");
        }
        worker.shutdown(LONG).await;
        let left = memory.find(Default::default()).await.unwrap();
        assert_eq!(left.len(), 3, "{at}: one task for each key");
    });
}

fn wide(width: usize) -> Workflow {
    let mut template = TaskTemplate::builder("wide").step(StepTemplate::new("start"));
    let names: Vec<_> = (0..width).map(|number| format!("part {number}")).collect();
    for name in &names {
        template = template.step(StepTemplate::new(name).handler("part").after("start"));
    }
    let template = template.step(StepTemplate::new("end").after_all(names)).build().unwrap();
    Workflow::new(template)
        .step("start", step_fn(|_: StepContext| async { Ok(()) }))
        .step(
            "part",
            step_fn(|step: StepContext| async move {
                tokio::time::sleep(Duration::from_secs(7)).await;
                Ok(step.step_name().to_owned())
            }),
        )
        .step("end", step_fn(|_: StepContext| async { Ok(()) }))
}

#[test]
fn a_failure_at_any_call_costs_nothing_when_workers_share_a_task() {
    at_every_call(async |store, memory, at| {
        let tasker = Tasker::builder(store).register(wide(5)).build().unwrap();
        let workers: Vec<_> = (0..2).map(|_| tasker.worker().slots(1).start()).collect();
        tokio::time::sleep(Duration::from_secs(20)).await;
        let id = submit(&tasker, "wide", "key").await;
        let onlooker = Tasker::builder(memory.clone()).build().unwrap();
        let status = onlooker.wait(id, LONG).await;
        let status = status.unwrap_or_else(|error| panic!("{at}: {error}"));
        assert_eq!(status.state, TaskState::Complete, "{at}");
        let expected = (0..7).map(|step| ((step, 1), "completed")).collect();
        assert_eq!(recorded(&memory, id).await, expected, "{at}");
        let stored = memory.load(id).await.unwrap().unwrap();
        let authors: HashSet<_> = stored.rows.into_iter().map(|row| row.author).collect();
        assert_eq!(authors.len(), 2, "{at}: the workers share the task");
        for worker in workers {
            worker.shutdown(LONG).await;
        }
    });
}

#[test]
fn a_store_that_is_away_for_a_while_costs_nothing() {
    for away_for in [1, 7, 40] {
        paused(async {
            let memory = MemoryStore::new();
            let store = FaultyStore::new(memory.clone());
            let calls = Arc::new(AtomicU32::new(0));
            let tasker = Tasker::builder(store.clone()).register(diamond(&calls)).build().unwrap();
            // The lease outlasts the absence.
            let worker = tasker.worker().lease(LONG).start();
            let mut tasks = Vec::new();
            for key in ["a", "b", "c", "d"] {
                tasks.push(submit(&tasker, "diamond", key).await);
            }
            store.fail_next(away_for);
            for id in tasks {
                let status = tasker.wait(id, LONG).await.unwrap();
                assert_eq!(status.state, TaskState::Complete);
                assert_eq!(recorded(&memory, id).await.len(), 5);
            }
            assert_eq!(store.failures(), away_for);
            assert_eq!(calls.load(Ordering::SeqCst), 8, "no attempt was made twice");
            worker.shutdown(LONG).await;
            true
        });
    }
}
