//! The engine on the store in memory, under paused time.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tasker_core::{
    MemoryStore, Operator, RetryPolicy, StepContext, StepError, StepState, StepTemplate,
    TaskRequest, TaskState, TaskTemplate, Tasker, Workflow, step_fn,
};

const LONG: Duration = Duration::from_secs(3600);

fn diamond() -> TaskTemplate {
    TaskTemplate::builder("diamond")
        .step(StepTemplate::new("top"))
        .step(StepTemplate::new("left").after("top"))
        .step(StepTemplate::new("right").after("top"))
        .step(StepTemplate::new("bottom").after_all(["left", "right"]))
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_diamond_hands_results_down() {
    let workflow = Workflow::new(diamond())
        .step("top", step_fn(|step: StepContext| async move { step.context::<i64>() }))
        .step(
            "left",
            step_fn(|step: StepContext| async move { Ok(step.result_of::<i64>("top")? + 1) }),
        )
        .step(
            "right",
            step_fn(|step: StepContext| async move { Ok(step.result_of::<i64>("top")? * 2) }),
        )
        .step(
            "bottom",
            step_fn(|step: StepContext| async move {
                Ok(step.result_of::<i64>("left")? + step.result_of::<i64>("right")?)
            }),
        );
    let tasker = Tasker::builder(MemoryStore::new()).register(workflow).build().unwrap();
    let worker = tasker.worker().start();
    for number in 0..100i64 {
        let receipt = tasker.submit(TaskRequest::new("diamond", &number).unwrap()).await.unwrap();
        let status = tasker.wait(receipt.id, LONG).await.unwrap();
        assert_eq!(status.state, TaskState::Complete);
        let bottom = status.step("bottom").unwrap().result.clone().unwrap();
        assert_eq!(bottom.to::<i64>().unwrap(), number + 1 + number * 2);
    }
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_step_is_retried_up_to_its_limit_and_again_when_an_operator_asks() {
    let calls = Arc::new(AtomicU32::new(0));
    let count = calls.clone();
    let template = TaskTemplate::builder("fragile")
        .step(StepTemplate::new("only").retry(RetryPolicy::fixed(3, Duration::from_secs(60))))
        .build()
        .unwrap();
    let workflow = Workflow::new(template).step(
        "only",
        step_fn(move |step: StepContext| {
            let call = count.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                assert_eq!(step.attempt(), call);
                if call < 5 { Err(StepError::retryable("not yet")) } else { Ok(call) }
            }
        }),
    );
    let tasker = Tasker::builder(MemoryStore::new()).register(workflow).build().unwrap();
    let worker = tasker.worker().start();
    let id = tasker.submit(TaskRequest::new("fragile", &()).unwrap()).await.unwrap().id;
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!(status.state, TaskState::Error);
    assert_eq!(status.steps[0].state, StepState::Error);
    assert_eq!(status.steps[0].attempts, 3);
    assert_eq!(calls.load(Ordering::SeqCst), 3);

    let operator = Operator::new("alice", "it is back");
    tasker.retry(id, &operator).await.unwrap();
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!(status.state, TaskState::Complete);
    assert_eq!(status.steps[0].attempts, 5);
    tasker.retry(id, &operator).await.unwrap_err();
    worker.shutdown(LONG).await;
}
