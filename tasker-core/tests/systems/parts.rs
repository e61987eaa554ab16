//! Workers of which each has some of the handlers that call a system.

use std::time::Duration;

use tasker_core::breaker::SystemPolicy;
use tasker_core::store::StateStore;
use tasker_core::{
    MemoryStore, StepContext, StepTemplate, TaskState, TaskTemplate, Tasker, Workflow, step_fn,
};

use crate::bank::{Bank, ends, submit};

/// A process that can do one half of a transfer.
fn half(store: &MemoryStore, bank: &std::sync::Arc<Bank>, name: &str) -> Tasker {
    let one = SystemPolicy { initial_calls: 1, ..SystemPolicy::default() };
    let order = TaskTemplate::builder("order").system("bank", one);
    let debit = StepTemplate::new("debit").dependent_system("bank");
    let credit = StepTemplate::new("credit").dependent_system("bank").after("debit");
    let bank = bank.clone();
    let workflow = Workflow::new(order.step(debit).step(credit).build().unwrap())
        .step(name, step_fn(move |_: StepContext| bank.clone().charge()));
    Tasker::builder(store.clone()).register_partial(workflow).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_task_does_not_go_to_and_fro_between_workers_of_which_each_has_one_of_its_handlers() {
    let (store, bank) = (MemoryStore::new(), Bank::new());
    let halves = ["debit", "credit"].map(|name| half(&store, &bank, name));
    let workers = halves.each_ref().map(|tasker| tasker.worker().start());
    let ids = submit(&halves[0], 300).await;
    for status in ends(&halves[1], &ids).await {
        assert_eq!(status.state, TaskState::Complete);
    }
    let mut most = 0;
    for id in &ids {
        most = most.max(store.load(*id).await.unwrap().unwrap().version);
    }
    // Being claimed and being put down each make a version: when it comes, for its turn to debit,
    // by who can credit, for its turn to do so; and now and then for a turn that others had.
    assert!(most <= 2 * 6, "a task changed hands {most} times");
    for worker in workers {
        worker.shutdown(Duration::from_secs(1)).await;
    }
}
