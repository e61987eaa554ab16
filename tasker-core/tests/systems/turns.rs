//! Steps that wait for a slot or their turn while others of their task run.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tasker_core::breaker::SystemPolicy;
use tasker_core::{
    MemoryStore, RetryPolicy, StepContext, StepError, StepState, StepTemplate, TaskId, TaskRequest,
    TaskTemplate, TaskTemplateBuilder, Tasker, Workflow, step_fn,
};

use crate::bank::{CALL, LONG, ends};

/// The bank bears one call at a time, and a call that fails makes it no more.
fn frail(name: &str) -> TaskTemplateBuilder {
    let policy = SystemPolicy { initial_calls: 1, minimum_calls: 10, ..SystemPolicy::default() };
    TaskTemplate::builder(name).system("bank", policy)
}

fn charge() -> StepTemplate {
    let step = StepTemplate::new("charge").dependent_system("bank");
    step.retry(RetryPolicy::none()).system_errors(["DOWN"])
}

async fn no_answer(_: StepContext) -> Result<(), StepError> {
    tokio::time::sleep(CALL).await;
    Err(StepError::permanent("DOWN", "no answer"))
}

fn plain() -> Workflow {
    Workflow::new(frail("plain").step(charge()).build().unwrap()).step("charge", step_fn(no_answer))
}

async fn submit(tasker: &Tasker, name: &str) -> TaskId {
    tasker.submit(TaskRequest::new(name, &()).unwrap()).await.unwrap().id
}

#[tokio::test(start_paused = true)]
async fn a_step_has_its_turn_though_another_of_its_task_runs_for_long() {
    let film = frail("film")
        .step(StepTemplate::new("render").timeout(LONG))
        .step(charge())
        .build()
        .unwrap();
    let render = step_fn(|_: StepContext| async {
        tokio::time::sleep(Duration::from_secs(600)).await;
        Ok::<_, StepError>(())
    });
    let film = Workflow::new(film).step("render", render).step("charge", step_fn(no_answer));
    let tasker = Tasker::builder(MemoryStore::new()).register(plain()).register(film);
    let tasker = tasker.build().unwrap();
    let worker = tasker.worker().start();
    submit(&tasker, "plain").await;
    tokio::time::sleep(CALL / 2).await;
    let film = submit(&tasker, "film").await;
    tokio::time::sleep(CALL * 5).await;
    let status = tasker.status(film).await.unwrap().unwrap();
    assert_eq!(status.step("charge").unwrap().state, StepState::Error);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_longest_for_a_slot_is_next_though_others_could_run_other_steps() {
    let order: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut fan = TaskTemplate::builder("fan").system("bank", SystemPolicy::default());
    for number in 0..10 {
        let step = StepTemplate::new(format!("step{number}")).handler("call");
        fan = fan.step(step.dependent_system("bank"));
    }
    let seen = order.clone();
    let call = step_fn(move |step: StepContext| {
        seen.lock().unwrap().push(step.step_name().to_owned());
        async {
            tokio::time::sleep(CALL).await;
            Ok::<_, StepError>(())
        }
    });
    let store = MemoryStore::new();
    let fan = Workflow::new(fan.build().unwrap()).step("call", call);
    let tasker = Tasker::builder(store.clone()).register(fan).build().unwrap();
    let other = Tasker::builder(store).register(plain()).build().unwrap();
    let worker = tasker.worker().slots(2).start();
    let idle = other.worker().slots(1).start();
    // With its next sign of life each is told what the others could run.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let fan = submit(&tasker, "fan").await;
    ends(&tasker, &[fan]).await;
    let order = order.lock().unwrap().clone();
    assert!(order.is_sorted(), "{order:?}");
    worker.shutdown(LONG).await;
    idle.shutdown(LONG).await;
}
