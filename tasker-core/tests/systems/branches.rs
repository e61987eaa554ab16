//! Tasks that call several systems side by side.

use std::time::Duration;

use tasker_core::breaker::SystemPolicy;
use tasker_core::{
    MemoryStore, Operator, RetryPolicy, StepContext, StepError, StepState, StepTemplate,
    TaskRequest, TaskState, TaskTemplate, Tasker, step_fn,
};

use crate::bank::{Bank, CALL, LONG, charge, ends, policy, workflow};

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
