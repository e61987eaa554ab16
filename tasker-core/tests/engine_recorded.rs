//! Steps whose success their handlers record themselves.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tasker_core::store::{Applied, Committed, StateStore, StoredTask};
use tasker_core::testing::{FaultyStore, Loss};
use tasker_core::{
    Completion, EventKind, FailureClass, MemoryStore, Operator, RetryPolicy, StepContext,
    StepHandler, StepOutput, StepResult, StepState, StepTemplate, TaskId, TaskRequest, TaskState,
    TaskTemplate, TaskTemplateBuilder, Tasker, Worker, Workflow, async_trait,
};

const LONG: Duration = Duration::from_secs(24 * 3600);
const A_MINUTE: Duration = Duration::from_secs(60);

/// What a handler does besides recording its own success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twist {
    Nothing,
    /// The answer of each step's first commit is lost, with or without the commit.
    Lose(Loss),
    /// Each step's first commit is given up, and takes effect three seconds later.
    LandsLate,
    /// The task is cancelled before the commit.
    Cancelled,
    /// It hangs after the commit.
    Hangs,
    /// The result is larger than is allowed.
    TooLarge,
    /// It winds up only when it is cancelled.
    WindsUp,
}

/// Adds up the results of the steps before it, records that, and counts its deliveries.
#[derive(Clone)]
struct Sum {
    /// The store that the handler writes to.
    store: FaultyStore<MemoryStore>,
    twist: Twist,
    /// The steps that it was called for.
    delivered: Arc<Mutex<Vec<String>>>,
}

impl Sum {
    fn new(store: &FaultyStore<MemoryStore>, twist: Twist) -> Self {
        Self { store: store.clone(), twist, delivered: Arc::default() }
    }

    fn deliveries(&self) -> usize {
        self.delivered.lock().unwrap().len()
    }

    async fn record(&self, completion: Completion) -> StepOutput {
        let change = completion.change().clone();
        let answer = self.store.commit(completion.author(), vec![change]).await;
        completion.committed(answer)
    }
}

#[async_trait]
impl StepHandler for Sum {
    async fn process(&self, step: StepContext) -> StepResult {
        let first = {
            let (name, mut delivered) =
                (step.step_name().to_owned(), self.delivered.lock().unwrap());
            let first = !delivered.contains(&name);
            delivered.push(name);
            first
        };
        tokio::time::sleep(Duration::from_secs(7)).await;
        let before = ["top", "left", "right", "start"];
        let before = before.iter().filter_map(|name| step.result_of::<u32>(name).ok());
        let mut output = step.complete(&(before.sum::<u32>() + 1))?;
        match self.twist {
            Twist::Lose(loss) if first => {
                self.store.fail_call(self.store.calls() + 1, loss);
            }
            Twist::Cancelled if first => {
                let tasker = Tasker::builder(self.store.clone()).build().unwrap();
                tasker.cancel(step.task_id(), &Operator::new("alice", "no")).await.unwrap();
            }
            Twist::TooLarge => output = step.complete(&"x".repeat(2_000_000))?,
            Twist::WindsUp if first => step.cancellation().cancelled().await,
            _ => {}
        }
        let completion = match step.completion(output) {
            Ok(completion) => completion,
            Err(output) => return Ok(output),
        };
        if self.twist == Twist::LandsLate && first {
            let (sum, late) = (self.clone(), completion.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(3)).await;
                drop(sum.record(late).await);
            });
            return Ok(completion.unknown());
        }
        let output = self.record(completion).await;
        if self.twist == Twist::Hangs {
            pending::<()>().await;
        }
        Ok(output)
    }
}

fn step(name: &str) -> StepTemplate {
    let retry = RetryPolicy::fixed(3, Duration::from_secs(5));
    StepTemplate::new(name).handler("sum").retry(retry).timeout(A_MINUTE)
}

fn diamond() -> TaskTemplateBuilder {
    TaskTemplate::builder("task")
        .step(step("top"))
        .step(step("left").after("top"))
        .step(step("right").after("top"))
        .step(step("bottom").after_all(["left", "right"]))
}

fn single() -> TaskTemplateBuilder {
    TaskTemplate::builder("task").step(step("only"))
}

const WIDTH: usize = 6;

fn wide() -> TaskTemplateBuilder {
    let names: Vec<_> = (0..WIDTH).map(|number| format!("part {number}")).collect();
    let parts = names.iter().map(|name| step(name).after("start"));
    let template = TaskTemplate::builder("task").step(step("start"));
    parts.fold(template, |template, part| template.step(part)).step(step("end").after_all(names))
}

struct Scene {
    memory: MemoryStore,
    store: FaultyStore<MemoryStore>,
    tasker: Tasker,
    sum: Sum,
}

fn scene(template: TaskTemplateBuilder, twist: Twist) -> Scene {
    let memory = MemoryStore::new();
    let store = FaultyStore::new(memory.clone());
    let sum = Sum::new(&store, twist);
    let workflow = Workflow::new(template.build().unwrap()).step("sum", sum.clone());
    let tasker = Tasker::builder(store.clone()).register(workflow).build().unwrap();
    Scene { memory, store, tasker, sum }
}

impl Scene {
    async fn submit(&self) -> TaskId {
        self.tasker.submit(TaskRequest::new("task", &()).unwrap()).await.unwrap().id
    }

    async fn ended(&self, id: TaskId) -> StoredTask {
        // Through no faulty store, so that only calls of the worker and the handlers are counted.
        let onlooker = Tasker::builder(self.memory.clone()).build().unwrap();
        onlooker.wait(id, LONG).await.unwrap();
        self.memory.load(id).await.unwrap().unwrap()
    }

    /// Two workers with one slot each that know of one another.
    async fn pair(&self) -> [Worker; 2] {
        let workers = [(); 2].map(|()| self.tasker.worker().slots(1).start());
        tokio::time::sleep(A_MINUTE).await;
        workers
    }
}

/// What is on record, by step and attempt, each of which is there once.
fn recorded(task: &StoredTask) -> BTreeMap<(usize, u32), &'static str> {
    let steps = task.rows.iter().filter_map(|row| {
        let step = row.transition.step?;
        Some(((step.get(), row.transition.attempt), row.transition.what.kind()))
    });
    let found: BTreeMap<_, _> = steps.clone().collect();
    assert_eq!(found.len(), steps.count(), "each attempt is recorded once: {:?}", task.rows);
    found
}

fn all_completed(steps: usize) -> BTreeMap<(usize, u32), &'static str> {
    (0..steps).map(|step| ((step, 1), "completed")).collect()
}

#[tokio::test(start_paused = true)]
async fn what_handlers_record_is_not_recorded_again() {
    let scene = scene(diamond(), Twist::Nothing);
    let mut events = scene.tasker.events();
    let worker = scene.tasker.worker().start();
    let id = scene.submit().await;
    let task = scene.ended(id).await;
    assert_eq!(task.state, TaskState::Complete);
    assert_eq!(recorded(&task), all_completed(4));
    let ran_for: Vec<_> = task.rows.iter().map(|row| row.transition.ran_for).collect();
    assert_eq!(ran_for, [Duration::from_secs(7); 4]);
    let status = scene.tasker.status(id).await.unwrap().unwrap();
    let bottom = status.step("bottom").unwrap().result.as_ref().unwrap();
    assert_eq!(bottom.as_str(), "6", "results are handed down");
    assert_eq!(worker.rejected_reports(), 0, "the worker wrote none of it");
    worker.shutdown(LONG).await;
    assert_eq!(scene.sum.deliveries(), 4);
    let told = std::iter::from_fn(|| events.try_recv().ok()).map(|event| event.kind);
    let told: Vec<_> = told.collect();
    let completed = told.iter().filter(|it| matches!(it, EventKind::StepCompleted { .. }));
    assert_eq!(completed.count(), 4, "each is told once: {told:?}");
    assert!(matches!(told.last(), Some(EventKind::TaskCompleted { .. })));
}

#[tokio::test(start_paused = true)]
async fn borrowed_steps_are_recorded_by_their_handlers() {
    let scene = scene(wide(), Twist::Nothing);
    let mut events = scene.tasker.events();
    let workers = scene.pair().await;
    let id = scene.submit().await;
    let task = scene.ended(id).await;
    assert_eq!(recorded(&task), all_completed(WIDTH + 2));
    let authors: BTreeSet<_> = task.rows.iter().map(|row| format!("{:?}", row.author)).collect();
    assert_eq!(authors.len(), 2, "the workers share the task");
    assert_eq!(scene.sum.deliveries(), WIDTH + 2);
    for worker in workers {
        assert_eq!(worker.rejected_reports(), 0);
        worker.shutdown(LONG).await;
    }
    let completed = std::iter::from_fn(|| events.try_recv().ok())
        .filter(|event| matches!(event.kind, EventKind::StepCompleted { .. }));
    assert_eq!(completed.count(), WIDTH + 2, "each is told once");
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_is_lost_counts_once() {
    for (loss, deliveries) in [(Loss::OfAnswer, 4), (Loss::OfCall, 8)] {
        let scene = scene(diamond(), Twist::Lose(loss));
        let worker = scene.tasker.worker().slots(1).start();
        let id = scene.submit().await;
        let task = scene.ended(id).await;
        assert_eq!(task.state, TaskState::Complete);
        assert_eq!(recorded(&task), all_completed(4), "no attempt is lost with it");
        assert_eq!(scene.sum.deliveries(), deliveries, "what is on record is not run again");
        assert_eq!(scene.store.failures(), 4);
        assert_eq!(worker.rejected_reports(), 0);
        worker.shutdown(LONG).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_borrowers_commit_whose_answer_is_lost_counts_once() {
    for loss in [Loss::OfAnswer, Loss::OfCall] {
        let scene = scene(wide(), Twist::Lose(loss));
        let workers = scene.pair().await;
        let id = scene.submit().await;
        let task = scene.ended(id).await;
        assert_eq!(task.state, TaskState::Complete);
        assert_eq!(recorded(&task), all_completed(WIDTH + 2), "{loss:?}");
        let authors: BTreeSet<_> =
            task.rows.iter().map(|row| format!("{:?}", row.author)).collect();
        assert_eq!(authors.len(), 2, "{loss:?}: the workers share the task");
        let ended = task.ended_at.unwrap().duration_since(task.created_at);
        assert!(Duration::try_from(ended).unwrap() < 3 * A_MINUTE, "{loss:?}: {ended:?}");
        for worker in workers {
            worker.shutdown(LONG).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_takes_effect_late_counts_once() {
    for (template, steps, slots) in [(diamond(), 4, 8), (wide(), WIDTH + 2, 1)] {
        let scene = scene(template, Twist::LandsLate);
        let workers = [(); 2].map(|()| scene.tasker.worker().slots(slots).start());
        tokio::time::sleep(A_MINUTE).await;
        let id = scene.submit().await;
        let task = scene.ended(id).await;
        assert_eq!(task.state, TaskState::Complete);
        assert_eq!(recorded(&task), all_completed(steps));
        assert!(scene.sum.deliveries() <= 2 * steps);
        for worker in workers {
            worker.shutdown(LONG).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_completion_of_a_task_that_was_cancelled_is_refused() {
    let scene = scene(single(), Twist::Cancelled);
    let worker = scene.tasker.worker().start();
    let id = scene.submit().await;
    let task = scene.ended(id).await;
    assert_eq!(task.state, TaskState::Cancelled);
    tokio::time::sleep(A_MINUTE).await;
    assert_eq!(recorded(&scene.ended(id).await), BTreeMap::new(), "nothing of it is recorded");
    assert_eq!(worker.rejected_reports(), 1, "the report is counted");
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_success_on_record_outdoes_a_time_out() {
    let scene = scene(diamond(), Twist::Hangs);
    let worker = scene.tasker.worker().start();
    let id = scene.submit().await;
    let task = scene.ended(id).await;
    assert_eq!(task.state, TaskState::Complete);
    assert_eq!(recorded(&task), all_completed(4), "what timed out had been recorded");
    assert_eq!(scene.sum.deliveries(), 4, "nothing runs again");
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_borrowers_success_on_record_outdoes_its_time_out() {
    let scene = scene(wide(), Twist::Hangs);
    let workers = scene.pair().await;
    let id = scene.submit().await;
    let task = scene.ended(id).await;
    assert_eq!(task.state, TaskState::Complete);
    assert_eq!(recorded(&task), all_completed(WIDTH + 2));
    for worker in workers {
        worker.shutdown(LONG).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_that_cannot_be_stored_is_refused_as_the_worker_refuses_it() {
    let scene = scene(single(), Twist::TooLarge);
    let worker = scene.tasker.worker().start();
    let id = scene.submit().await;
    scene.ended(id).await;
    let status = scene.tasker.status(id).await.unwrap().unwrap();
    let only = status.step("only").unwrap();
    assert_eq!((only.state, only.attempts), (StepState::Error, 1), "it fails for good");
    let failure = only.failure.as_ref().unwrap();
    assert_eq!(
        (failure.class, failure.code.as_str()),
        (FailureClass::Unstorable, "RESULT_TOO_LARGE")
    );
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_the_store_knows_nothing_of_is_a_failure() {
    let mut scene = scene(single(), Twist::Nothing);
    // It writes to a store that knows nothing of the task.
    scene.sum.store = FaultyStore::new(MemoryStore::new());
    let template = single().build().unwrap();
    let workflow = Workflow::new(template).step("sum", scene.sum.clone());
    scene.tasker = Tasker::builder(scene.store.clone()).register(workflow).build().unwrap();
    let worker = scene.tasker.worker().start();
    let id = scene.submit().await;
    let task = scene.ended(id).await;
    assert_eq!(task.state, TaskState::Error, "it does not go round for ever");
    let expected = (1..=3).map(|attempt| ((0, attempt), "failed")).collect();
    assert_eq!(recorded(&task), expected);
    let status = scene.tasker.status(id).await.unwrap().unwrap();
    assert_eq!(status.step("only").unwrap().failure.as_ref().unwrap().code, "NOT_RECORDED");
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_success_on_record_counts_in_a_shutdown_too() {
    let scene = scene(single(), Twist::WindsUp);
    let worker = scene.tasker.worker().start();
    let id = scene.submit().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    worker.shutdown(Duration::from_secs(1)).await;
    let task = scene.memory.load(id).await.unwrap().unwrap();
    assert_eq!((task.state, recorded(&task)), (TaskState::Complete, all_completed(1)));
    assert_eq!(scene.sum.deliveries(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_completion_is_of_its_attempt_alone() {
    let scene = scene(single(), Twist::Nothing);
    struct Twice(Sum);
    #[async_trait]
    impl StepHandler for Twice {
        async fn process(&self, step: StepContext) -> StepResult {
            let output = step.complete(&1)?;
            let completion = step.completion(output.clone()).unwrap();
            let change = completion.change().clone();
            let again = self.0.store.commit(completion.author(), vec![change.clone(), change]);
            let Committed::Changes { applied, now } = again.await.unwrap() else { panic!() };
            assert_eq!(applied, [Applied::Yes, Applied::Conflict], "a row exists once");
            let recorded = completion.recorded(now);
            // What is recorded is no result to be recorded.
            Ok(step.completion(recorded).unwrap_err())
        }
    }
    let workflow = Workflow::new(single().build().unwrap()).step("sum", Twice(scene.sum.clone()));
    let tasker = Tasker::builder(scene.store.clone()).register(workflow).build().unwrap();
    let worker = tasker.worker().start();
    let id = tasker.submit(TaskRequest::new("task", &()).unwrap()).await.unwrap().id;
    assert_eq!(recorded(&scene.ended(id).await), all_completed(1));
    worker.shutdown(LONG).await;
}

#[test]
fn a_failure_at_any_call_costs_nothing() {
    for (template, slots) in [(diamond as fn() -> _, 8), (wide as fn() -> _, 1)] {
        for loss in [Loss::OfCall, Loss::OfAnswer] {
            for call in 1.. {
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = runtime.enable_all().start_paused(true).build().unwrap();
                if !runtime.block_on(one_fails(template(), slots, call, loss)) {
                    assert!(call > 10, "a play has some calls");
                    break;
                }
            }
        }
    }
}

/// Whether the play had so many calls.
async fn one_fails(template: TaskTemplateBuilder, slots: usize, call: usize, loss: Loss) -> bool {
    let scene = scene(template, Twist::Nothing);
    let workers = [(); 2].map(|()| scene.tasker.worker().slots(slots).start());
    tokio::time::sleep(A_MINUTE).await;
    let id = scene.submit().await;
    scene.store.fail_call(scene.store.calls() + call, loss);
    let task = scene.ended(id).await;
    assert_eq!(task.state, TaskState::Complete);
    assert!(recorded(&task).values().all(|what| *what == "completed"), "{loss:?} {call}");
    assert!(recorded(&task).keys().all(|(_, attempt)| *attempt == 1), "{loss:?} {call}");
    for worker in workers {
        worker.shutdown(LONG).await;
    }
    scene.store.failures() > 0
}
