//! What a handler may do to its attempt: panic, hang, block, return what cannot be stored.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tasker_core::history::FailureClass;
use tasker_core::{
    MemoryStore, RetryPolicy, StepContext, StepError, StepHandler, StepTemplate, TaskRequest,
    TaskState, TaskStatus, TaskTemplate, Tasker, Workflow, step_fn,
};

const LONG: Duration = Duration::from_secs(24 * 3600);

/// A task of one step, and beside it a task that must not suffer from it.
fn tasker(step: StepTemplate, handler: impl StepHandler) -> Tasker {
    let good = TaskTemplate::builder("good").step(StepTemplate::new("only")).build().unwrap();
    let good = Workflow::new(good).step("only", step_fn(|_: StepContext| async { Ok(1) }));
    let bad = TaskTemplate::builder("bad").step(step).build().unwrap();
    let bad = Workflow::new(bad).step("only", handler);
    Tasker::builder(MemoryStore::new()).register(good).register(bad).build().unwrap()
}

/// Runs the task, with neighbours that are settled in the same batches.
async fn run(tasker: &Tasker) -> TaskStatus {
    let worker = tasker.worker().start();
    let request = |task: &str| TaskRequest::new(task, &()).unwrap();
    let requests = vec![request("good"), request("bad"), request("good")];
    let mut ids = Vec::new();
    for receipt in tasker.submit_all(requests).await.unwrap() {
        ids.push(receipt.unwrap().id);
    }
    let bad = tasker.wait(ids[1], LONG).await.unwrap();
    for id in [ids[0], ids[2]] {
        let good = tasker.wait(id, LONG).await.unwrap();
        assert_eq!(good.state, TaskState::Complete, "one bad step holds up no other task");
    }
    worker.shutdown(LONG).await;
    bad
}

/// What is on record of a task whose step failed for good.
fn failure(status: &TaskStatus) -> (FailureClass, &str, u32) {
    assert_eq!(status.state, TaskState::Error);
    let failure = status.steps[0].failure.as_ref().unwrap();
    (failure.class, &failure.code, status.steps[0].attempts)
}

fn two_attempts() -> StepTemplate {
    StepTemplate::new("only").retry(RetryPolicy::fixed(2, Duration::from_secs(1)))
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_recorded_and_retried() {
    let panics = step_fn(|step: StepContext| async move {
        if step.attempt() > 0 {
            panic!("attempt {} went wrong", step.attempt());
        }
        Ok(())
    });
    let status = run(&tasker(two_attempts(), panics)).await;
    assert_eq!(failure(&status), (FailureClass::Panicked, "PANICKED", 2));
    let message = &status.steps[0].failure.as_ref().unwrap().message;
    assert!(message.contains("attempt 2 went wrong"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_times_out_and_is_retried() {
    let hangs = step_fn(|step: StepContext| async move {
        if step.attempt() == 1 {
            std::future::pending::<()>().await;
        }
        Ok(step.attempt())
    });
    let step = two_attempts().timeout(Duration::from_secs(30));
    let tasker = tasker(step, hangs);
    let status = run(&tasker).await;
    assert_eq!((status.state, status.steps[0].attempts), (TaskState::Complete, 2));
    let history = tasker.history(status.id).await.unwrap().unwrap();
    let failed = history.iter().find_map(|entry| entry.failure.clone()).unwrap();
    assert_eq!(failed.class, FailureClass::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_starts_the_time_out_anew() {
    let beats = step_fn(|step: StepContext| async move {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(20)).await;
            step.heartbeat()?;
        }
        Ok(())
    });
    let step = StepTemplate::new("only").timeout(Duration::from_secs(30));
    let status = run(&tasker(step, beats)).await;
    assert_eq!((status.state, status.steps[0].attempts), (TaskState::Complete, 1));

    let silent = step_fn(|_: StepContext| async {
        tokio::time::sleep(Duration::from_secs(31)).await;
        Ok(())
    });
    let step = two_attempts().timeout(Duration::from_secs(30));
    let status = run(&tasker(step, silent)).await;
    assert_eq!(failure(&status), (FailureClass::TimedOut, "TIMED_OUT", 2));
}

#[tokio::test(start_paused = true)]
async fn a_result_that_cannot_be_stored_is_a_permanent_failure() {
    let large = step_fn(|_: StepContext| async { Ok("x".repeat(10 << 20)) });
    let status = run(&tasker(two_attempts(), large)).await;
    assert_eq!(failure(&status), (FailureClass::Unstorable, "RESULT_TOO_LARGE", 1));

    let nul = step_fn(|_: StepContext| async { Ok("a\0b") });
    let status = run(&tasker(two_attempts(), nul)).await;
    assert_eq!(failure(&status), (FailureClass::Unstorable, "RESULT_HAS_NUL", 1));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_no_store_takes_is_made_fit() {
    let failing = step_fn(|_: StepContext| async {
        let message = format!("a\0b{}", "ü".repeat(1 << 20));
        Err::<(), _>(StepError::permanent("C\0DE", message))
    });
    let status = run(&tasker(two_attempts(), failing)).await;
    let failure = status.steps[0].failure.as_ref().unwrap();
    assert!(failure.message.len() < 5000 && !failure.message.contains('\0'));
    assert!(!failure.code.contains('\0'));
}

/// In real time, on threads: what blocks cannot be advanced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_its_thread_times_out_all_the_same() {
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let blocks = step_fn(move |_: StepContext| {
        let released = released.clone();
        async move {
            // The end of the test, which drops the sender, gives the thread back.
            let _ = released.lock().unwrap().recv();
            Ok(())
        }
    });
    let step =
        StepTemplate::new("only").timeout(Duration::from_millis(50)).retry(RetryPolicy::none());
    let tasker = tasker(step, blocks);
    let worker = tasker.worker().slots(4).start();
    let bad = tasker.submit(TaskRequest::new("bad", &()).unwrap()).await.unwrap().id;
    let good = tasker.submit(TaskRequest::new("good", &()).unwrap()).await.unwrap().id;
    let status = tasker.wait(good, LONG).await.unwrap();
    assert_eq!(status.state, TaskState::Complete, "others run beside it");
    let status = tasker.wait(bad, LONG).await.unwrap();
    assert_eq!(failure(&status), (FailureClass::TimedOut, "TIMED_OUT", 1));
    let message = &status.steps[0].failure.as_ref().unwrap().message;
    assert!(message.contains("blocks its thread"), "{message}");
    drop(release);
    worker.shutdown(Duration::from_secs(10)).await;
}
