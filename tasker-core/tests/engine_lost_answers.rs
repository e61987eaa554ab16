//! Calls whose answers were lost and that take effect only when everybody has stopped waiting, and
//! calls that are answered late.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tasker_core::history::Author;
use tasker_core::store::{
    ClaimRequest, Claimed, Committed, Created, DocumentChange, DocumentQuery, Documents,
    DocumentsWritten, Heartbeat, NewTask, Renewed, StateStore, StoredTask, TaskChange,
};
use tasker_core::{
    Action, MemoryStore, Operator, StepContext, StepTemplate, StoreError, TaskId, TaskQuery,
    TaskRequest, TaskState, TaskSummary, TaskTemplate, Tasker, WorkerId, Workflow, async_trait,
    step_fn,
};
use tokio::sync::Notify;
use tokio::time::Instant;

const LONG: Duration = Duration::from_secs(24 * 3600);
const A_MOMENT: Duration = Duration::from_millis(1_100);

/// A store of which one call, once, is answered by a failure and takes effect later.
#[derive(Clone)]
struct Laggard {
    store: MemoryStore,
    /// How late the next submission takes effect.
    late_create: Arc<Mutex<Option<Duration>>>,
    late_claim: Arc<Mutex<LateClaim>>,
    /// How long the next commit takes.
    slow_commit: Arc<Mutex<Option<Duration>>>,
    /// Who submits a task while the next recovering claim is on its way, which is answered only
    /// when the task has ended, with what was true when it was stored.
    slow_recovery: Arc<Mutex<Option<Tasker>>>,
    created: Arc<Notify>,
}

/// A claim that takes effect together with a submission, so that nobody is quicker.
#[derive(Default)]
enum LateClaim {
    #[default]
    None,
    Next,
    /// Has no effect at all.
    Fail,
    /// The first that gets something is not answered.
    Lose,
    OnItsWay(ClaimRequest),
}

impl Laggard {
    fn new() -> Self {
        let store = MemoryStore::new();
        Self {
            store,
            late_create: Arc::default(),
            late_claim: Arc::default(),
            slow_commit: Arc::default(),
            slow_recovery: Arc::default(),
            created: Arc::default(),
        }
    }

    fn is_claim_on_its_way(&self) -> bool {
        matches!(*self.late_claim.lock().unwrap(), LateClaim::OnItsWay(_))
    }
}

fn away<T>() -> Result<T, StoreError> {
    let reason = "the connection was lost".to_owned();
    Err(StoreError::Unavailable { reason, source: None })
}

#[async_trait]
impl StateStore for Laggard {
    async fn create(
        &self,
        tasks: Vec<NewTask>,
        claimant: Option<WorkerId>,
    ) -> Result<Vec<Created>, StoreError> {
        let late_claim = std::mem::take(&mut *self.late_claim.lock().unwrap());
        if let LateClaim::OnItsWay(claim) = late_claim {
            let created = self.store.create(tasks, claimant).await;
            let claimed = self.store.claim(claim).await.unwrap();
            assert!(matches!(claimed, Claimed::Work(work) if work.tasks.len() == 1));
            return created;
        }
        let late = self.late_create.lock().unwrap().take();
        let Some(late) = late else {
            let created = self.store.create(tasks, claimant).await;
            self.created.notify_one();
            tokio::time::sleep(Duration::from_millis(1)).await;
            return created;
        };
        let store = self.store.clone();
        tokio::spawn(async move {
            tokio::time::sleep(late).await;
            store.create(tasks, claimant).await.unwrap();
        });
        away()
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, StoreError> {
        {
            let mut late = self.late_claim.lock().unwrap();
            if matches!(*late, LateClaim::Next) {
                *late = LateClaim::OnItsWay(request);
                return away();
            }
            if matches!(*late, LateClaim::Fail) {
                *late = LateClaim::None;
                return away();
            }
        }
        let submitter = self.slow_recovery.lock().unwrap().clone();
        if let Some(tasker) = submitter.filter(|_| request.holding.is_some()) {
            let submitted = tokio::spawn(async move {
                tasker.submit(TaskRequest::new("task", &()).unwrap()).await.unwrap().id
            });
            self.created.notified().await;
            let claimed = self.store.claim(request).await;
            let id = submitted.await.unwrap();
            while self.store.load(id).await.unwrap().unwrap().ended_at.is_none() {
                tokio::time::sleep(A_MOMENT).await;
            }
            // Its owner forgets it once it was told.
            tokio::time::sleep(A_MOMENT).await;
            *self.slow_recovery.lock().unwrap() = None;
            return claimed;
        }
        let claimed = self.store.claim(request).await;
        let mut late = self.late_claim.lock().unwrap();
        let got = matches!(&claimed, Ok(Claimed::Work(work)) if !work.tasks.is_empty());
        if got && matches!(*late, LateClaim::Lose) {
            *late = LateClaim::None;
            return away();
        }
        drop(late);
        claimed
    }

    async fn commit(
        &self,
        author: &Author,
        changes: Vec<TaskChange>,
    ) -> Result<Committed, StoreError> {
        let slow = self.slow_commit.lock().unwrap().take();
        tokio::time::sleep(slow.unwrap_or_default()).await;
        self.store.commit(author, changes).await
    }

    async fn renew(&self, beat: Heartbeat) -> Result<Renewed, StoreError> {
        self.store.renew(beat).await
    }

    async fn take_over(&self, limit: usize) -> Result<Vec<WorkerId>, StoreError> {
        self.store.take_over(limit).await
    }

    async fn load(&self, task: TaskId) -> Result<Option<StoredTask>, StoreError> {
        self.store.load(task).await
    }

    async fn find(&self, query: TaskQuery) -> Result<Vec<TaskSummary>, StoreError> {
        self.store.find(query).await
    }

    async fn read_documents(&self, query: DocumentQuery) -> Result<Documents, StoreError> {
        self.store.read_documents(query).await
    }

    async fn write_documents(
        &self,
        changes: Vec<DocumentChange>,
    ) -> Result<DocumentsWritten, StoreError> {
        self.store.write_documents(changes).await
    }

    async fn wait_for_work(&self, worker: WorkerId, max: Duration) {
        self.store.wait_for_work(worker, max).await;
    }
}

fn tasker(store: &Laggard) -> Tasker {
    let template = TaskTemplate::builder("task").step(StepTemplate::new("step")).build().unwrap();
    let workflow = Workflow::new(template).step("step", step_fn(|_: StepContext| async { Ok(()) }));
    Tasker::builder(store.clone()).register(workflow).build().unwrap()
}

async fn only_task(store: &Laggard) -> Option<TaskSummary> {
    let mut found = store.find(TaskQuery::default()).await.unwrap();
    assert!(found.len() <= 1);
    found.pop()
}

/// The task is complete once and at its first owner, soon after the call took effect.
async fn is_rescued(store: &Laggard, late: Duration, within: Duration) {
    let began = Instant::now();
    while only_task(store).await.is_none_or(|task| task.state != TaskState::Complete) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(began.elapsed() < LONG, "late by {late:?}: nobody goes on with it");
    }
    assert!(began.elapsed() <= late + within, "late by {late:?}: {:?}", began.elapsed());
    let task = only_task(store).await.unwrap();
    let rows = store.load(task.id).await.unwrap().unwrap().rows;
    assert_eq!(rows.len(), 1, "late by {late:?}: {rows:?}");
}

#[tokio::test(start_paused = true)]
async fn a_submission_that_lands_late_is_run() {
    for late in [0, 10, 900, 1_100, 2_900, 12_000, 29_000].map(Duration::from_millis) {
        let store = Laggard::new();
        let tasker = tasker(&store);
        let worker = tasker.worker().start();
        tokio::time::sleep(Duration::from_secs(5)).await;
        *store.late_create.lock().unwrap() = Some(late);
        tasker.submit(TaskRequest::new("task", &()).unwrap()).await.unwrap_err();
        is_rescued(&store, late, late + A_MOMENT).await;
        worker.shutdown(LONG).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_lands_late_loses_nothing() {
    for late in [0, 10, 900, 1_100, 2_900, 12_000, 29_000].map(Duration::from_millis) {
        let store = Laggard::new();
        let tasker = tasker(&store);
        let worker = tasker.worker().start();
        *store.late_claim.lock().unwrap() = LateClaim::Next;
        while !store.is_claim_on_its_way() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(late).await;
        // Of a process without a worker.
        let there = self::tasker(&store);
        there.submit(TaskRequest::new("task", &()).unwrap()).await.unwrap();
        is_rescued(&store, Duration::ZERO, late + A_MOMENT).await;
        worker.shutdown(LONG).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_ends_while_a_commit_takes_long_has_ended_in_time() {
    let store = Laggard::new();
    *store.slow_commit.lock().unwrap() = Some(Duration::from_secs(20));
    let step = |name| StepTemplate::new(name).timeout(Duration::from_secs(5));
    let template = TaskTemplate::builder("task").step(step("first")).step(step("second"));
    let workflow = Workflow::new(template.build().unwrap())
        .step("first", step_fn(|_: StepContext| async { Ok(()) }))
        .step(
            "second",
            step_fn(|_: StepContext| async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok(())
            }),
        );
    let tasker = Tasker::builder(store).register(workflow).build().unwrap();
    let worker = tasker.worker().start();
    let task = tasker.submit(TaskRequest::new("task", &()).unwrap()).await.unwrap();
    let status = tasker.wait(task.id, LONG).await.unwrap();
    assert_eq!(status.state, TaskState::Complete);
    let attempts: Vec<_> = status.steps.iter().map(|step| step.attempts).collect();
    assert_eq!(attempts, [1, 1], "{status:?}");
    assert_eq!(worker.rejected_reports(), 0);
    worker.shutdown(LONG).await;
}

/// A submission that is stored while a recovery is on its way, and has ended when that is answered.
#[tokio::test(start_paused = true)]
async fn what_is_submitted_during_a_recovery_starts_once() {
    let store = Laggard::new();
    let starts = Arc::new(AtomicUsize::new(0));
    let template = TaskTemplate::builder("task").step(StepTemplate::new("step")).build().unwrap();
    let counted = starts.clone();
    let step = step_fn(move |_: StepContext| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }
    });
    let workflow = Workflow::new(template).step("step", step);
    let tasker = Tasker::builder(store.clone()).register(workflow).build().unwrap();
    // More than one claim reserves, so that there is room for a submission beside it.
    let worker = tasker.worker().slots(256).start();
    while !worker.is_registered() {
        tokio::time::sleep(A_MOMENT).await;
    }
    *store.slow_recovery.lock().unwrap() = Some(tasker.clone());
    *store.late_claim.lock().unwrap() = LateClaim::Fail;
    let recovered = async {
        while store.slow_recovery.lock().unwrap().is_some() {
            tokio::time::sleep(A_MOMENT).await;
        }
    };
    tokio::time::timeout(LONG, recovered).await.expect("the recovery is made and answered");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let task = only_task(&store).await.expect("it was submitted");
    assert_eq!(task.state, TaskState::Complete);
    assert_eq!(starts.load(Ordering::SeqCst), 1);
    assert_eq!(worker.rejected_reports(), 0);
    worker.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_does_not_outlive_that_its_task_was_taken_away() {
    let store = Laggard::new();
    let template = TaskTemplate::builder("task");
    let template = template.step(StepTemplate::new("pay").timeout(LONG).compensate_with("refund"));
    let template = template.step(StepTemplate::new("look"));
    let (paying, refunds) = (Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
    let (begun, refunded) = (paying.clone(), refunds.clone());
    let pay = step_fn(move |_: StepContext| {
        let begun = begun.clone();
        async move {
            begun.notify_one();
            tokio::time::sleep(LONG / 2).await;
            Ok(())
        }
    });
    // Its end finds the task moved, while the payment runs on.
    let look = step_fn(|_: StepContext| async {
        tokio::time::sleep(A_MOMENT).await;
        Ok(())
    });
    let refund = step_fn(move |_: StepContext| {
        refunded.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }
    });
    let workflow = Workflow::new(template.build().unwrap())
        .step("pay", pay)
        .step("refund", refund)
        .step("look", look);
    let tasker = Tasker::builder(store.clone()).register(workflow).build().unwrap();
    let worker = tasker.worker().start();
    let id = tasker.submit(TaskRequest::new("task", &()).unwrap()).await.unwrap().id;
    paying.notified().await;
    *store.late_claim.lock().unwrap() = LateClaim::Lose;
    let alice = Operator::new("alice", "not wanted any more");
    // Both before the worker hears of the first.
    let desk = Tasker::builder(store.store.clone()).build().unwrap();
    desk.cancel(id, &alice).await.unwrap();
    desk.operate(id, Action::Compensate, &alice).await.unwrap();
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!(status.state, TaskState::Compensated);
    assert_eq!(refunds.load(Ordering::SeqCst), 1, "that it was paid is no refund");
    worker.shutdown(LONG).await;
}
