//! Steps that wait: for a slot, for a retry, for a handler that cannot be had this moment.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tasker_core::store::{Heartbeat, StateStore};
use tasker_core::{
    MemoryStore, Priority, RetryPolicy, StepContext, StepError, StepHandler, StepTemplate,
    TaskHandler, TaskRequest, TaskState, TaskTemplate, Tasker, Workflow, step_fn,
};
use tokio::sync::Notify;

const LONG: Duration = Duration::from_secs(24 * 3600);

fn steps<const N: usize>(names: [&str; N]) -> TaskTemplate {
    let template = TaskTemplate::builder("steps");
    let steps = names.into_iter().map(|name| StepTemplate::new(name).timeout(LONG));
    steps.fold(template, |template, step| template.step(step)).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_failed_task_waits_for_its_siblings_while_a_retry_is_due() {
    let template = TaskTemplate::builder("mixed")
        .step(StepTemplate::new("long").timeout(LONG))
        .step(StepTemplate::new("again").retry(RetryPolicy::fixed(3, Duration::from_secs(60))))
        .step(StepTemplate::new("bad"))
        .build()
        .unwrap();
    let long = step_fn(|_: StepContext| async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Ok(())
    });
    let again =
        step_fn(|_: StepContext| async { Err::<(), _>(StepError::retryable("the line is busy")) });
    let bad = step_fn(|_: StepContext| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Err::<(), _>(StepError::permanent("REFUSED", "no"))
    });
    let workflow = Workflow::new(template).step("long", long).step("again", again).step("bad", bad);
    let tasker = Tasker::builder(MemoryStore::new()).register(workflow).build().unwrap();
    let worker = tasker.worker().start();
    let id = tasker.submit(TaskRequest::new("mixed", &()).unwrap()).await.unwrap().id;
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!(status.state, TaskState::Error);
    assert_eq!(status.step("again").unwrap().attempts, 1, "nothing began after the failure");
    assert!(status.step("long").unwrap().result.is_some(), "what ran has ended");
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_step_that_waited_for_a_slot_runs_once_after_the_lease_was_lost() {
    let store = MemoryStore::new();
    let (began, ran) = (Arc::new(Notify::new()), Arc::new(Mutex::new(Vec::new())));
    let handler = || {
        let (began, ran) = (began.clone(), ran.clone());
        step_fn(move |step: StepContext| {
            let first = {
                let mut ran = ran.lock().unwrap();
                ran.push(step.step_name().to_owned());
                ran.len() == 1
            };
            began.notify_one();
            async move {
                if first {
                    step.cancellation().cancelled().await;
                }
                Ok(())
            }
        })
    };
    let workflow = Workflow::new(steps(["a", "b", "c"]));
    let workflow = workflow.step("a", handler()).step("b", handler()).step("c", handler());
    let tasker = Tasker::builder(store.clone()).register(workflow).build().unwrap();
    let worker = tasker.worker().slots(1).start();
    let id = tasker.submit(TaskRequest::new("steps", &()).unwrap()).await.unwrap().id;
    began.notified().await;
    let owner = store.load(id).await.unwrap().unwrap().owner.unwrap();
    let name = String::new();
    let gone = Heartbeat { worker: owner, name, lease: None, spare: 0, running: Vec::new() };
    store.renew(gone).await.unwrap();

    assert_eq!(tasker.wait(id, LONG).await.unwrap().state, TaskState::Complete);
    let mut ran = ran.lock().unwrap().clone();
    ran.sort();
    assert_eq!(ran, ["a", "a", "b", "c"], "only what was cut off ran twice");
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn of_the_tasks_that_wait_the_urgent_ones_run_first() {
    let ran = Arc::new(Mutex::new(Vec::<Priority>::new()));
    let runs = ran.clone();
    let workflow = Workflow::new(steps(["run"])).step(
        "run",
        step_fn(move |step: StepContext| {
            runs.lock().unwrap().push(step.context().unwrap());
            async { Ok(()) }
        }),
    );
    let tasker = Tasker::builder(MemoryStore::new()).register(workflow).build().unwrap();
    let mut ids = Vec::new();
    for priority in Priority::ALL {
        let request = TaskRequest::new("steps", &priority).unwrap().priority(priority);
        ids.push(tasker.submit(request).await.unwrap().id);
    }
    let worker = tasker.worker().slots(1).start();
    for (id, priority) in ids.into_iter().zip(Priority::ALL) {
        let status = tasker.wait(id, LONG).await.unwrap();
        assert_eq!((status.state, status.priority), (TaskState::Complete, priority));
    }
    assert_eq!(*ran.lock().unwrap(), [Priority::High, Priority::Normal, Priority::Low]);
    worker.shutdown(LONG).await;
}

/// A kind of task whose handler cannot be looked up once.
struct Shaky {
    workflow: Workflow,
    armed: Arc<AtomicBool>,
}

impl TaskHandler for Shaky {
    fn template(&self) -> &Arc<TaskTemplate> {
        self.workflow.template()
    }

    fn step_handler(&self, handler: &str) -> Option<Arc<dyn StepHandler>> {
        assert!(!self.armed.swap(false, Ordering::SeqCst), "the registry is being rebuilt");
        self.workflow.step_handler(handler)
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_look_up_of_a_handler_holds_up_nobody() {
    let armed = Arc::new(AtomicBool::new(false));
    let workflow =
        Workflow::new(steps(["only"])).step("only", step_fn(|_: StepContext| async { Ok(()) }));
    let shaky = Shaky { workflow, armed: armed.clone() };
    let tasker = Tasker::builder(MemoryStore::new()).register(shaky).build().unwrap();
    let worker = tasker.worker().start();
    armed.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let id = tasker.submit(TaskRequest::new("steps", &()).unwrap()).await.unwrap().id;
        assert_eq!(tasker.wait(id, LONG).await.unwrap().state, TaskState::Complete);
    }
    worker.shutdown(LONG).await;
}
