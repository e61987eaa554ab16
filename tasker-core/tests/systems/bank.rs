//! A bank that can be down, and tasks that charge cards there.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tasker_core::breaker::SystemPolicy;
use tasker_core::history::AfterFailure;
use tasker_core::history::Occurrence;
use tasker_core::store::StateStore;
use tasker_core::{
    RetryPolicy, StepContext, StepError, StepTemplate, TaskId, TaskRequest, TaskStatus,
    TaskTemplate, Tasker, Workflow, step_fn,
};
use tokio::time::Instant;

pub const LONG: Duration = Duration::from_secs(24 * 3600);
pub const PROBES: Duration = Duration::from_secs(30);
/// How long the bank takes to answer.
pub const CALL: Duration = Duration::from_millis(100);

#[derive(Default)]
pub struct Bank {
    pub down: AtomicBool,
    /// It takes a call and never answers.
    pub hangs: AtomicBool,
    pub declines: AtomicBool,
    pub calls: AtomicUsize,
    now: AtomicUsize,
    /// When calls began, and how many there were at once.
    pub load: Mutex<Vec<(Instant, usize)>>,
}

/// A call under way.
struct Line(Arc<Bank>);

impl Drop for Line {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Bank {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub async fn charge(self: Arc<Self>) -> Result<(), StepError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let at_once = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.load.lock().unwrap().push((Instant::now(), at_once));
        let _line = Line(self.clone());
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(CALL).await;
        if self.down.load(Ordering::SeqCst) {
            return Err(StepError::retryable("no answer").with_code("DOWN"));
        }
        if self.declines.load(Ordering::SeqCst) {
            return Err(StepError::permanent("CARD_DECLINED", "the card was declined"));
        }
        Ok(())
    }

    /// The most calls at once in each slice of time since the first call after `from`.
    pub fn waves(&self, from: Instant, slice: Duration) -> Vec<usize> {
        let load = self.load.lock().unwrap();
        let mut waves = Vec::new();
        for (at, at_once) in load.iter().filter(|(at, _)| *at >= from) {
            let wave = (at.duration_since(from).as_millis() / slice.as_millis()) as usize;
            waves.resize(waves.len().max(wave + 1), 0);
            waves[wave] = waves[wave].max(*at_once);
        }
        waves
    }
}

pub fn policy() -> SystemPolicy {
    SystemPolicy { probe_interval: PROBES, ..SystemPolicy::default() }
}

pub fn charge() -> StepTemplate {
    let retry = RetryPolicy::fixed(3, Duration::from_secs(1));
    StepTemplate::new("charge").dependent_system("bank").retry(retry)
}

pub fn template(step: StepTemplate) -> TaskTemplate {
    let order = TaskTemplate::builder("order").system("bank", policy());
    order.step(StepTemplate::new("check")).step(step.after("check")).build().unwrap()
}

pub fn workflow(bank: &Arc<Bank>, template: TaskTemplate) -> Workflow {
    let bank = bank.clone();
    Workflow::new(template)
        .step("check", step_fn(|_: StepContext| async { Ok(()) }))
        .step("charge", step_fn(move |_: StepContext| bank.clone().charge()))
}

pub fn tasker(store: impl StateStore, bank: &Arc<Bank>) -> Tasker {
    let workflow = workflow(bank, template(charge()));
    Tasker::builder(store).register(workflow).build().unwrap()
}

pub async fn submit(tasker: &Tasker, orders: usize) -> Vec<TaskId> {
    let mut ids = Vec::with_capacity(orders);
    for _ in 0..orders {
        let request = TaskRequest::new("order", &()).unwrap();
        ids.push(tasker.submit(request).await.unwrap().id);
    }
    ids
}

/// Waits for the ends of tasks.
pub async fn ends(tasker: &Tasker, ids: &[TaskId]) -> Vec<TaskStatus> {
    let mut ends = Vec::with_capacity(ids.len());
    for id in ids {
        ends.push(tasker.wait(*id, LONG).await.unwrap());
    }
    ends
}

/// How many attempts of all tasks failed and count, and how many do not count.
pub async fn failures(store: &impl StateStore, ids: &[TaskId]) -> (usize, usize) {
    let (mut counted, mut spared) = (0, 0);
    for id in ids {
        for row in store.load(*id).await.unwrap().unwrap().rows {
            match row.transition.what {
                Occurrence::Failed { next: AfterFailure::WaitForSystem, .. } => spared += 1,
                Occurrence::Failed { .. } => counted += 1,
                _ => {}
            }
        }
    }
    (counted, spared)
}
