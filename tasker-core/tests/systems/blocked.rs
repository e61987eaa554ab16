//! Handlers that block the thread on which they call a system.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tasker_core::breaker::{BreakerState, SystemPolicy};
use tasker_core::{
    MemoryStore, RetryPolicy, StepContext, StepError, StepTemplate, TaskRequest, TaskTemplate,
    Tasker, Workflow, step_fn,
};

const SOON: Duration = Duration::from_secs(20);

/// In real time, on threads: what blocks cannot be advanced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_blocks_its_thread_counts_when_it_times_out_and_gives_its_place_back() {
    let one = SystemPolicy { initial_calls: 1, minimum_calls: 2, ..SystemPolicy::default() };
    let call = StepTemplate::new("call").dependent_system("bank");
    let call = call.retry(RetryPolicy::none()).timeout(Duration::from_millis(20));
    let order = TaskTemplate::builder("order").system("bank", one).step(call).build().unwrap();
    // Never answers; ends with the test.
    let (line, answer) = mpsc::channel::<()>();
    let answer = Arc::new(Mutex::new(answer));
    let blocks = step_fn(move |_: StepContext| {
        let answer = answer.clone();
        async move {
            let _ = answer.lock().unwrap().recv();
            Ok::<_, StepError>(())
        }
    });
    let workflow = Workflow::new(order).step("call", blocks);
    let tasker = Tasker::builder(MemoryStore::new()).register(workflow).build().unwrap();
    let worker = tasker.worker().start();
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(tasker.submit(TaskRequest::new("order", &()).unwrap()).await.unwrap().id);
    }
    // The second has the only place once the first has given it back.
    tokio::time::timeout(SOON, async {
        while tasker.systems().await.unwrap().iter().all(|it| it.state == BreakerState::Closed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the breaker opens");
    let bank = &tasker.systems().await.unwrap()[0];
    let reason = bank.reason.clone().unwrap_or_default();
    assert!(reason.starts_with("2 of 2 recent calls failed, the last with TIMED_OUT"), "{reason}");
    drop(line);
    worker.shutdown(SOON).await;
}
