//! Several systems that bear few calls, and tasks that call none, on one small worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tasker_core::breaker::SystemPolicy;
use tasker_core::{
    MemoryStore, Operator, RetryPolicy, StepContext, StepError, StepTemplate, TaskRequest,
    TaskState, TaskTemplate, Tasker, Workflow, step_fn,
};
use tokio::time::Instant;

use crate::bank::{CALL, LONG, ends};

const SYSTEMS: [&str; 3] = ["bank", "post", "stock"];

/// A system of which every other call fails, so that it never is called by more than two at once.
fn calling(system: &'static str, calls: &Arc<AtomicUsize>) -> Workflow {
    let frail = SystemPolicy { initial_calls: 1, failure_rate: 1.0, ..SystemPolicy::default() };
    let step = StepTemplate::new("call").dependent_system(system).retry(RetryPolicy::none());
    let step = step.system_errors(["DOWN"]);
    let calls = calls.clone();
    let call = step_fn(move |_: StepContext| {
        let even = calls.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        async move {
            tokio::time::sleep(CALL).await;
            if even { Ok(()) } else { Err(StepError::permanent("DOWN", "no answer")) }
        }
    });
    let template = TaskTemplate::builder(system).system(system, frail).step(step);
    Workflow::new(template.build().unwrap()).step("call", call)
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_systems_leaves_slots_to_what_calls_none_and_to_each_other() {
    let calls: [Arc<AtomicUsize>; 3] = Default::default();
    let plain = TaskTemplate::builder("plain").step(StepTemplate::new("work")).build().unwrap();
    let work = step_fn(|_: StepContext| async {
        tokio::time::sleep(CALL).await;
        Ok::<_, StepError>(())
    });
    let mut tasker = Tasker::builder(MemoryStore::new());
    tasker = tasker.register(Workflow::new(plain).step("work", work));
    for (system, calls) in SYSTEMS.into_iter().zip(&calls) {
        tasker = tasker.register(calling(system, calls));
    }
    let tasker = tasker.build().unwrap();
    let worker = tasker.worker().slots(4).start();
    let ada = Operator::new("Ada", "they move house");
    for system in SYSTEMS {
        tasker.trip_system(system, &ada).await.unwrap();
        for _ in 0..100 {
            tasker.submit(TaskRequest::new(system, &()).unwrap()).await.unwrap();
        }
    }
    tokio::time::sleep(CALL * 10).await;
    for system in SYSTEMS {
        tasker.reset_system(system, &ada).await.unwrap();
    }
    tokio::time::sleep(CALL * 10).await;
    let (began, mut ids) = (Instant::now(), Vec::new());
    for _ in 0..20 {
        ids.push(tasker.submit(TaskRequest::new("plain", &()).unwrap()).await.unwrap().id);
    }
    for status in ends(&tasker, &ids).await {
        assert_eq!(status.state, TaskState::Complete);
    }
    // With one of four slots it takes 2 seconds.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let calls = calls.map(|calls| calls.load(Ordering::SeqCst));
    assert!(calls.iter().all(|most| calls.iter().all(|least| *most < 3 * least)), "{calls:?}");
    worker.shutdown(LONG).await;
}
