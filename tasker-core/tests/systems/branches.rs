//! Tasks that call several systems side by side.

use std::time::Duration;

use tasker_core::breaker::SystemPolicy;
use tasker_core::store::StateStore;
use tasker_core::{
    MemoryStore, Operator, RetryPolicy, StepContext, StepError, StepState, StepTemplate,
    TaskRequest, TaskState, TaskTemplate, Tasker, step_fn,
};

use crate::bank::{Bank, CALL, LONG, charge, ends, failures, policy, submit, workflow};

const A_WHILE: Duration = Duration::from_secs(10);

/// A charge, and a letter that one at a time can be sent.
fn tasker(bank: &std::sync::Arc<Bank>) -> Tasker {
    let one = SystemPolicy { initial_calls: 1, ..SystemPolicy::default() };
    let letter = StepTemplate::new("letter").dependent_system("post").retry(RetryPolicy::none());
    let order = TaskTemplate::builder("order").system("bank", policy()).system("post", one);
    let order = order.step(charge()).step(letter).build().unwrap();
    let workflow = workflow(bank, order).step(
        "letter",
        step_fn(|_: StepContext| async {
            tokio::time::sleep(CALL).await;
            Ok::<_, StepError>(())
        }),
    );
    Tasker::builder(MemoryStore::new()).register(workflow).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_turn_at_one_system_does_not_wait_for_another_that_is_down() {
    let bank = Bank::new();
    let tasker = tasker(&bank);
    let worker = tasker.worker().start();
    let ada = Operator::new("Ada", "the bank moves house");
    tasker.trip_system("bank", &ada).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..20 {
        let request = TaskRequest::new("order", &()).unwrap();
        ids.push(tasker.submit(request).await.unwrap().id);
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    for id in &ids {
        let status = tasker.status(*id).await.unwrap().unwrap();
        assert_eq!(status.step("letter").unwrap().state, StepState::Complete);
        assert_ne!(status.state, TaskState::Complete);
    }
    tasker.reset_system("bank", &ada).await.unwrap();
    for status in ends(&tasker, &ids).await {
        assert_eq!(status.state, TaskState::Complete);
    }
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn undoing_waits_for_a_system_that_is_down_and_spends_no_attempt() {
    let (store, bank) = (MemoryStore::new(), Bank::new());
    let order = TaskTemplate::builder("order").system("bank", policy());
    let order = order.step(charge().compensate_with("refund").retry(RetryPolicy::none()));
    let ship = StepTemplate::new("ship").after("charge").retry(RetryPolicy::none());
    let (desk, refund) = (bank.clone(), bank.clone());
    let workflow = workflow(&bank, order.step(ship).build().unwrap())
        .step("refund", step_fn(move |_: StepContext| refund.clone().charge()))
        .step(
            "ship",
            step_fn(move |_: StepContext| {
                let desk = desk.clone();
                async move {
                    tokio::time::sleep(A_WHILE).await;
                    desk.set_down(true);
                    Err::<(), _>(StepError::permanent("SOLD_OUT", "nothing is left"))
                }
            }),
        );
    let tasker = Tasker::builder(store.clone()).register(workflow).build().unwrap();
    let worker = tasker.worker().start();
    let ids = submit(&tasker, 20).await;
    tokio::time::sleep(A_WHILE / 2).await;
    let ada = Operator::new("Ada", "the bank moves house");
    tasker.trip_system("bank", &ada).await.unwrap();
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(bank.calls(), 20);
    for id in &ids {
        let stored = store.load(*id).await.unwrap().unwrap();
        assert_eq!((stored.state, stored.owner), (TaskState::Compensating, None));
        assert!(stored.route.unwrap().waits_for().is_some());
    }
    bank.set_down(false);
    tasker.reset_system("bank", &ada).await.unwrap();
    for status in ends(&tasker, &ids).await {
        assert_eq!(status.state, TaskState::Compensated);
    }
    assert_eq!((bank.calls(), failures(&store, &ids).await), (40, (20, 0)));
    worker.shutdown(LONG).await;
}
