//! Workers of one process that serve different kinds of task and call the same system.

use std::sync::Arc;
use std::time::Duration;

use tasker_core::store::StateStore;
use tasker_core::{
    MemoryStore, StepContext, StepError, StepTemplate, TaskId, TaskRequest, TaskState,
    TaskTemplate, Tasker, Workflow, step_fn,
};
use tokio::time::Instant;

use crate::bank::{Bank, LONG, PROBES, charge, ends, policy, submit, workflow};

const A_WHILE: Duration = Duration::from_secs(10);

/// Orders of two shops, paid at one bank.
fn shops(bank: &Arc<Bank>) -> Tasker {
    let mut builder = Tasker::builder(MemoryStore::new());
    for shop in ["east", "west"] {
        let order = TaskTemplate::builder("order").namespace(shop).system("bank", policy());
        let order = order.step(StepTemplate::new("check")).step(charge().after("check"));
        builder = builder.register(workflow(bank, order.build().unwrap()));
    }
    builder.build().unwrap()
}

async fn orders(tasker: &Tasker, shop: &str, orders: usize) -> Vec<TaskId> {
    let mut ids = Vec::with_capacity(orders);
    for _ in 0..orders {
        let request = TaskRequest::new(format!("{shop}/order"), &()).unwrap();
        ids.push(tasker.submit(request).await.unwrap().id);
    }
    ids
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_finds_nobody_to_probe_with_keeps_no_other_from_probing() {
    for shop in ["east", "west"] {
        let bank = Bank::new();
        bank.set_down(true);
        let tasker = shops(&bank);
        let workers = ["east", "west"].map(|shop| tasker.worker().namespaces([shop]).start());
        let ids = orders(&tasker, shop, 20).await;
        tokio::time::sleep(A_WHILE).await;
        let before = bank.calls();
        tokio::time::sleep(PROBES * 10).await;
        let probes = bank.calls() - before;
        assert!((9..=11).contains(&probes), "one probe in each interval: {probes}");
        bank.set_down(false);
        let back = Instant::now();
        for status in ends(&tasker, &ids).await {
            assert_eq!(status.state, TaskState::Complete);
        }
        assert!(back.elapsed() < PROBES + A_WHILE, "{:?}", back.elapsed());
        for worker in workers {
            worker.shutdown(LONG).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_for_which_none_wait_does_not_slow_the_release() {
    for shop in ["east", "west"] {
        let bank = Bank::new();
        let tasker = shops(&bank);
        let workers = ["east", "west"].map(|shop| tasker.worker().namespaces([shop]).start());
        let began = Instant::now();
        let ids = orders(&tasker, shop, 200).await;
        for status in ends(&tasker, &ids).await {
            assert_eq!(status.state, TaskState::Complete);
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        for worker in workers {
            worker.shutdown(LONG).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_for_a_system_that_answers_at_once_is_claimed_once() {
    let store = MemoryStore::new();
    let call = StepTemplate::new("call").dependent_system("stock");
    let order = TaskTemplate::builder("order").step(call).build().unwrap();
    let call = step_fn(|_: StepContext| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok::<_, StepError>(())
    });
    let workflow = Workflow::new(order).step("call", call);
    let tasker = Tasker::builder(store.clone()).register(workflow).build().unwrap();
    let worker = tasker.worker().start();
    tokio::time::sleep(A_WHILE).await;
    let ids = submit(&tasker, 500).await;
    for status in ends(&tasker, &ids).await {
        assert_eq!(status.state, TaskState::Complete);
    }
    for id in &ids {
        let rows = store.load(*id).await.unwrap().unwrap().version;
        assert_eq!(rows, 2, "claimed and ended");
    }
    worker.shutdown(LONG).await;
}
