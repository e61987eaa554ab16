//! Escalations, from what happens to the person that hears of it, on the store in memory and under
//! paused time.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod delivery;
mod gone;
mod overdue;
mod people;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tasker_core::{
    Escalation, EscalationQuery, EscalationSink, RetryPolicy, SinkError, StateStore, StepContext,
    StepError, StepTemplate, TaskId, TaskRequest, TaskTemplate, Tasker, Workflow, async_trait,
    step_fn,
};
use tokio::time::Instant;

const LONG: Duration = Duration::from_secs(24 * 3600);
/// The lease of a claim, the time between two heartbeats and a moment.
const CLAIM_OVER: Duration = Duration::from_secs(60 + 10 + 1);

/// How a sink answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// It fails so many times.
    Fails(usize),
    Panics(usize),
    /// It does not answer so many times.
    Hangs(usize),
}

/// A sink that remembers what it was told, and when.
#[derive(Clone)]
struct Pager {
    name: &'static str,
    mood: Mood,
    told: Arc<Mutex<Vec<(Instant, Escalation)>>>,
}

impl Pager {
    fn new(name: &'static str, mood: Mood) -> Self {
        Self { name, mood, told: Arc::default() }
    }

    fn told(&self) -> Vec<(Instant, Escalation)> {
        self.told.lock().unwrap().clone()
    }

    fn times(&self) -> usize {
        self.told.lock().unwrap().len()
    }

    /// How often it was told each.
    fn by_key(&self) -> BTreeMap<String, usize> {
        let mut times = BTreeMap::new();
        for (_, escalation) in self.told() {
            *times.entry(escalation.key).or_default() += 1;
        }
        times
    }

    async fn is_told(&self, times: usize) {
        while self.times() < times {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[async_trait]
impl EscalationSink for Pager {
    fn name(&self) -> &str {
        self.name
    }

    async fn deliver(&self, escalation: &Escalation) -> Result<(), SinkError> {
        let before = {
            let mut told = self.told.lock().unwrap();
            told.push((Instant::now(), escalation.clone()));
            told.len() - 1
        };
        match self.mood {
            Mood::Fails(times) if before < times => Err(SinkError::new("the line is busy")),
            Mood::Panics(times) if before < times => panic!("the line is broken"),
            Mood::Hangs(times) if before < times => std::future::pending().await,
            Mood::Well | Mood::Fails(_) | Mood::Panics(_) | Mood::Hangs(_) => Ok(()),
        }
    }
}

/// Tasks with a step that fails for good unless its context is `true`, and one that hangs.
fn workflows() -> [Workflow; 2] {
    let step = StepTemplate::new("charge").retry(RetryPolicy::none());
    let template = TaskTemplate::builder("order").namespace("shop").step(step).build().unwrap();
    let order = Workflow::new(template).step(
        "charge",
        step_fn(|step: StepContext| async move {
            if step.context::<bool>().unwrap_or_default() {
                return Ok(());
            }
            Err(StepError::permanent("CARD_DECLINED", "the card was declined"))
        }),
    );
    let step = StepTemplate::new("wait").timeout(LONG).expected_within(Duration::from_secs(600));
    let template = TaskTemplate::builder("slow").deadline(Duration::from_secs(3600)).step(step);
    let slow = Workflow::new(template.build().unwrap())
        .step("wait", step_fn(|_: StepContext| std::future::pending::<Result<(), _>>()));
    [order, slow]
}

fn tasker(store: &Arc<dyn StateStore>, pagers: &[&Pager]) -> Tasker {
    let mut builder = Tasker::builder_on(store.clone());
    for workflow in workflows() {
        builder = builder.register(workflow);
    }
    for pager in pagers {
        builder = builder.escalate_to((*pager).clone());
    }
    builder.build().unwrap()
}

async fn submit(tasker: &Tasker, name: &str) -> TaskId {
    tasker.submit(TaskRequest::new(name, &"a secret").unwrap()).await.unwrap().id
}

async fn all(tasker: &Tasker) -> Vec<Escalation> {
    tasker.escalations(EscalationQuery::default()).await.unwrap().escalations
}

async fn only(tasker: &Tasker) -> Escalation {
    let mut found = all(tasker).await;
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}
