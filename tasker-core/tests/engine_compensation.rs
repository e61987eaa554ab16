//! Undoing what a failed task did, through failures, crashes, and workers that come and go.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tasker_core::history::Occurrence;
use tasker_core::store::{Collection, DocumentQuery, Heartbeat, StateStore, StoredTask};
use tasker_core::testing::{FaultyStore, Loss, WorkflowTest};
use tasker_core::{
    Action, MemoryStore, OperateError, Operator, RetryPolicy, StepContext, StepError, StepState,
    StepTemplate, SubmitError, TaskId, TaskRequest, TaskState, TaskTemplate, Tasker, WorkerId,
    Workflow, step_fn,
};
use tokio::sync::Notify;

const LONG: Duration = Duration::from_secs(24 * 3600);
const UNDONE: [&str; 3] = ["left", "right", "top"];

/// What the steps did outside, by idempotency key, and the order in which it was undone.
#[derive(Default)]
struct World {
    done: Mutex<BTreeMap<String, u32>>,
    undone: Mutex<Vec<String>>,
    /// How often undoing `right` was tried.
    tries: AtomicU32,
    /// Whether the last step succeeds.
    mended: AtomicBool,
}

impl World {
    fn effects(&self) -> u32 {
        self.done.lock().unwrap().values().sum()
    }

    fn undone(&self) -> Vec<String> {
        self.undone.lock().unwrap().clone()
    }
}

/// A diamond whose last step fails for good, and whose right step is undone at the third attempt.
fn diamond() -> (Workflow, Arc<World>) {
    let world = Arc::new(World::default());
    let step = |name: &str| {
        let retry = RetryPolicy::fixed(5, Duration::from_secs(30));
        StepTemplate::new(name).retry(retry).handler("do").compensate_with("undo")
    };
    let template = TaskTemplate::builder("diamond")
        .step(step("top"))
        .step(step("left").after("top"))
        .step(step("right").after("top"))
        .step(StepTemplate::new("bottom").after_all(["left", "right"]))
        .build()
        .unwrap();
    let (doing, undoing, ending) = (world.clone(), world.clone(), world.clone());
    let act = step_fn(move |step: StepContext| {
        let key = step.idempotency_key().to_owned();
        doing.done.lock().unwrap().entry(key).or_insert(1);
        async { Ok(()) }
    });
    let undo = step_fn(move |step: StepContext| {
        let world = undoing.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let name = step.step_name().to_owned();
            if name == "right" && world.tries.fetch_add(1, Ordering::SeqCst) < 2 {
                return Err(StepError::retryable("not yet"));
            }
            let mut done = world.done.lock().unwrap();
            // A second delivery finds nothing left.
            if let Some(left) =
                done.iter_mut().find(|(key, left)| key.contains(&name) && **left > 0)
            {
                *left.1 = 0;
                world.undone.lock().unwrap().push(name);
            }
            Ok(())
        }
    });
    let bottom = step_fn(move |_: StepContext| {
        let mended = ending.mended.load(Ordering::SeqCst);
        async move { if mended { Ok(()) } else { Err(StepError::permanent("NO", "never")) } }
    });
    let workflow =
        Workflow::new(template).step("do", act).step("undo", undo).step("bottom", bottom);
    (workflow, world)
}

fn tasker(store: impl StateStore, workflow: &Workflow) -> Tasker {
    Tasker::builder(store).register(workflow.clone()).build().unwrap()
}

async fn submit(tasker: &Tasker) -> TaskId {
    for _ in 0..10 {
        let request = TaskRequest::new("diamond", &()).unwrap().idempotency_key("the one");
        match tasker.submit(request).await {
            Ok(receipt) => return receipt.id,
            Err(SubmitError::Store(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the store fails once and no more");
}

async fn stored(store: &MemoryStore, id: TaskId) -> StoredTask {
    store.load(id).await.unwrap().unwrap()
}

fn count(task: &StoredTask, is: impl Fn(&Occurrence) -> bool) -> usize {
    task.rows.iter().filter(|row| is(&row.transition.what)).count()
}

/// Everything was undone, once, each step after those that rest on it.
fn expect_undone(task: &StoredTask, world: &World, at: &str) {
    assert_eq!(task.state, TaskState::Compensated, "{at}: {:#?}", task.rows);
    assert_eq!(world.effects(), 0, "{at}");
    let mut undone = world.undone();
    assert_eq!(undone.last().map(String::as_str), Some("top"), "{at}: {undone:?}");
    undone.sort();
    assert_eq!(undone, UNDONE, "{at}: each once");
    let rows = count(task, |what| matches!(what, Occurrence::Compensated));
    assert_eq!(rows, UNDONE.len(), "{at}: each is on record once");
    let begun = count(task, |what| matches!(what, Occurrence::CompensationBegun));
    assert_eq!(begun, 1, "{at}");
}

fn paused<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(test)
}

#[test]
fn a_crash_at_any_call_leaves_nothing_done() {
    let check = |status: &tasker_core::TaskStatus, world: &Arc<World>| {
        assert_eq!(status.state, TaskState::Compensated);
        assert_eq!(world.effects(), 0);
        let undone = world.undone();
        let distinct: BTreeSet<_> = undone.iter().collect();
        assert_eq!(undone.len(), distinct.len(), "each once: {undone:?}");
    };
    let mended = || {
        let (workflow, world) = diamond();
        world.mended.store(true, Ordering::SeqCst);
        (workflow, world)
    };
    let test = WorkflowTest::new(mended).check_undone(check);
    assert_eq!(test.run().state, TaskState::Complete);
    test.crash_while_failing();
    // As it comes: the last step fails, and the worker dies at every call.
    WorkflowTest::new(diamond).check(check).crash_at_each_point();
}

/// Plays with a failure at each call in turn, until a play has no such call.
fn at_every_call(play: impl AsyncFn(FaultyStore<MemoryStore>, MemoryStore, String)) {
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
                break;
            }
        }
    }
}

#[test]
fn a_failure_at_any_call_costs_no_compensation_and_no_order() {
    at_every_call(async |store, memory, at| {
        let (workflow, world) = diamond();
        let tasker = tasker(store, &workflow);
        // Looks through no faulty store, so that only calls of the engine are counted.
        let onlooker = Tasker::builder(memory.clone()).build().unwrap();
        let worker = tasker.worker().start();
        let id = submit(&tasker).await;
        onlooker.wait(id, LONG).await.unwrap();
        expect_undone(&stored(&memory, id).await, &world, &at);

        // A person orders it again, under a key, until the answer comes through.
        world.mended.store(true, Ordering::SeqCst);
        let alice = Operator::new("alice", "mended").once("again");
        while let Err(error) = tasker.operate(id, Action::Retry, &alice).await {
            assert!(matches!(error, OperateError::Store(_)), "{at}: {error}");
        }
        let status = onlooker.wait(id, LONG).await.unwrap();
        assert_eq!(status.state, TaskState::Complete, "{at}");
        assert_eq!(world.effects(), 3, "{at}: done anew, once each");
        assert_eq!(world.done.lock().unwrap().len(), 6, "{at}: under keys of its own");
        let task = stored(&memory, id).await;
        let orders = count(&task, |what| matches!(what, Occurrence::Operated(_)));
        assert_eq!(orders, 1, "{at}: the order is on record once");
        let escalations = DocumentQuery::List {
            collection: Collection::Escalation,
            state: None,
            after: None,
            limit: 100,
        };
        let raised = memory.read_documents(escalations).await.unwrap().found;
        assert_eq!(raised.len(), 1, "{at}: a person was called once: {raised:#?}");
        worker.shutdown(LONG).await;
    });
}

#[test]
fn workers_may_go_at_any_time_while_a_task_is_undone() {
    #[derive(Clone, Copy, Debug)]
    enum Goes {
        Dies,
        ShutsDown,
        LosesItsLease,
    }
    // What is undone takes about six minutes; at many moments of it the owner goes.
    for second in (0..420).step_by(20) {
        for goes in [Goes::Dies, Goes::ShutsDown, Goes::LosesItsLease] {
            paused(async {
                let at = format!("{goes:?} after {second} s");
                let (workflow, world) = diamond();
                let store = MemoryStore::new();
                let here = tasker(store.clone(), &workflow);
                let there = tasker(store.clone(), &workflow);
                let first = here.worker().start();
                let id = submit(&here).await;
                tokio::time::sleep(Duration::from_secs(second)).await;
                let second = there.worker().start();
                let mut kept = None;
                match goes {
                    Goes::Dies => drop(first),
                    Goes::ShutsDown => first.shutdown(Duration::from_secs(1)).await,
                    Goes::LosesItsLease => {
                        if let Some(owner) = stored(&store, id).await.owner {
                            retire(&store, owner).await;
                        }
                        kept = Some(first);
                    }
                }
                there.wait(id, LONG).await.unwrap();
                let task = stored(&store, id).await;
                expect_undone(&task, &world, &at);
                let attempts = task.rows.iter().map(|row| row.transition.attempt).max();
                // A delivery that was lost may have used up one of the two failures.
                assert!(attempts <= Some(3), "{at}: no attempt is spent on a worker that goes");
                if matches!(goes, Goes::ShutsDown) {
                    let lost = count(&task, |what| matches!(what, Occurrence::WorkerLost { .. }));
                    assert_eq!(lost, 0, "{at}: it gives back what it has");
                }
                second.shutdown(LONG).await;
                if let Some(first) = kept {
                    first.shutdown(LONG).await;
                }
            });
        }
    }
}

/// Takes a worker's life from outside, as a take-over does.
async fn retire(store: &MemoryStore, worker: WorkerId) {
    let (name, lease) = ("test".to_owned(), None);
    let beat = Heartbeat { worker, name, lease, spare: 0, running: Vec::new() };
    store.renew(beat).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_step_of_a_paused_task_is_told_and_runs_again_uncounted() {
    let (began, told) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begin, tell, deliveries) = (began.clone(), told.clone(), Arc::new(AtomicU32::new(0)));
    let template = TaskTemplate::builder("diamond").step(StepTemplate::new("only").retry_limit(1));
    let only = step_fn(move |step: StepContext| {
        let (begin, tell) = (begin.clone(), tell.clone());
        let delivery = deliveries.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            if delivery == 1 {
                begin.notify_one();
                step.cancellation().cancelled().await;
                tell.notify_one();
                return Err(StepError::permanent("TOLD", "it was told to stop"));
            }
            Ok((delivery, step.attempt()))
        }
    });
    let workflow = Workflow::new(template.build().unwrap()).step("only", only);
    let store = MemoryStore::new();
    let tasker = tasker(store.clone(), &workflow);
    let worker = tasker.worker().start();
    let id = submit(&tasker).await;
    began.notified().await;
    let alice = Operator::new("alice", "we look into it");
    tasker.operate(id, Action::Pause, &alice).await.unwrap();
    told.notified().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let status = tasker.status(id).await.unwrap().unwrap();
    let step = status.step("only").unwrap();
    assert_eq!((status.state, step.state, step.attempts), (TaskState::Paused, StepState::Ready, 0));
    tasker.operate(id, Action::Resume, &alice).await.unwrap();
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!(status.state, TaskState::Complete);
    let step = status.step("only").unwrap();
    assert_eq!(step.attempts, 1, "the delivery that was told to stop does not count");
    assert_eq!(step.result.as_ref().unwrap().as_str(), "[2,1]");
    worker.shutdown(LONG).await;
}
