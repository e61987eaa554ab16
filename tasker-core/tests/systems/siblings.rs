//! Tasks of which one step waits for a system and another for something else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tasker_core::{
    MemoryStore, Operator, RetryPolicy, StepContext, StepError, StepState, StepTemplate, TaskState,
    TaskTemplate, Tasker, step_fn,
};
use tokio::time::Instant;

use crate::bank::{Bank, LONG, PROBES, charge, ends, policy, submit, workflow};

const BACK_OFF: Duration = Duration::from_secs(3600);

/// A charge, and beside it a label of which the first attempt fails.
fn tasker(bank: &Arc<Bank>) -> (Tasker, Arc<AtomicUsize>) {
    let label = StepTemplate::new("label").retry(RetryPolicy::fixed(3, BACK_OFF));
    let order = TaskTemplate::builder("order").system("bank", policy());
    let order = order.step(charge()).step(label).build().unwrap();
    let printed = Arc::new(AtomicUsize::new(0));
    let printer = printed.clone();
    let workflow = workflow(bank, order).step(
        "label",
        step_fn(move |step: StepContext| {
            printer.fetch_add(1, Ordering::SeqCst);
            async move {
                match step.attempt() {
                    1 => Err(StepError::retryable("no paper")),
                    _ => Ok(()),
                }
            }
        }),
    );
    (Tasker::builder(MemoryStore::new()).register(workflow).build().unwrap(), printed)
}

#[tokio::test(start_paused = true)]
async fn a_parked_step_is_released_with_its_system_whatever_its_sibling_waits_for() {
    let bank = Bank::new();
    let (tasker, printed) = tasker(&bank);
    let worker = tasker.worker().start();
    let ada = Operator::new("Ada", "the bank moves house");
    tasker.trip_system("bank", &ada).await.unwrap();
    let ids = submit(&tasker, 20).await;
    tokio::time::sleep(BACK_OFF / 2).await;
    assert_eq!((bank.calls(), printed.load(Ordering::SeqCst)), (0, 20));
    tasker.reset_system("bank", &ada).await.unwrap();
    tokio::time::sleep(2 * PROBES).await;
    assert_eq!(bank.calls(), 20);
    for id in &ids {
        let status = tasker.status(*id).await.unwrap().unwrap();
        assert_eq!(status.step("charge").unwrap().state, StepState::Complete);
    }
    for status in ends(&tasker, &ids).await {
        assert_eq!(status.state, TaskState::Complete);
    }
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_not_held_up_by_a_system_that_is_down() {
    let bank = Bank::new();
    let (tasker, printed) = tasker(&bank);
    let worker = tasker.worker().start();
    let ada = Operator::new("Ada", "the bank moves house");
    tasker.trip_system("bank", &ada).await.unwrap();
    let (began, ids) = (Instant::now(), submit(&tasker, 20).await);
    tokio::time::sleep(BACK_OFF + Duration::from_secs(2)).await;
    assert_eq!(printed.load(Ordering::SeqCst), 40, "{:?}", began.elapsed());
    for id in &ids {
        let why = tasker.why(*id).await.unwrap().unwrap().to_string();
        assert!(why.contains("waits for `bank`"), "{why}");
    }
    worker.shutdown(LONG).await;
}
