//! Diamonds whose parents run in different workers and end at the same moment.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fixture::{DEADLINE, connect, eventually, number, open, schema};
use tasker_core::{
    StepContext, StepTemplate, TaskHandler, TaskId, TaskRequest, TaskState, TaskTemplate, Tasker,
    Workflow, step_fn,
};
use tokio::sync::Barrier;

const DIAMONDS: usize = 1_000;
/// Each has one slot: it runs one parent and has to offer the other.
const OWNERS: usize = 8;
/// How long a parent waits for its sibling.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the handlers of all workers share.
#[derive(Default)]
struct Seen {
    barriers: Mutex<HashMap<TaskId, Arc<Barrier>>>,
    joins: Mutex<HashMap<TaskId, usize>>,
}

impl Seen {
    fn barrier(&self, task: TaskId) -> Arc<Barrier> {
        let mut barriers = self.barriers.lock().unwrap();
        Arc::clone(barriers.entry(task).or_insert_with(|| Arc::new(Barrier::new(2))))
    }
}

/// Parents that wait for each other, and a join that counts its starts.
fn workflow(template: &Arc<TaskTemplate>, seen: &Arc<Seen>) -> Workflow {
    let parent = || {
        let seen = Arc::clone(seen);
        step_fn(move |step: StepContext| {
            let barrier = seen.barrier(step.task_id());
            async move {
                // In vain only if its sibling waits for the very slot that this one holds.
                let together = tokio::time::timeout(PATIENCE, barrier.wait()).await.is_ok();
                Ok(together)
            }
        })
    };
    let seen = Arc::clone(seen);
    let join = step_fn(move |step: StepContext| {
        *seen.joins.lock().unwrap().entry(step.task_id()).or_default() += 1;
        async { Ok(()) }
    });
    Workflow::new(Arc::clone(template))
        .step("split", step_fn(|_: StepContext| async { Ok(()) }))
        .step("left", parent())
        .step("right", parent())
        .step("join", join)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_join_of_parents_that_end_together_in_two_workers_starts_once() {
    let schema = schema().await;
    let seen: Arc<Seen> = Arc::default();
    let template = TaskTemplate::builder("diamond")
        .step(StepTemplate::new("split"))
        .step(StepTemplate::new("left").after("split"))
        .step(StepTemplate::new("right").after("split"))
        .step(StepTemplate::new("join").after_all(["left", "right"]));
    let template = Arc::new(template.build().unwrap());
    let workflow = workflow(&template, &seen);

    // The one with room for all that others offer comes first, so that they know of it. It has
    // no handlers but the parents', so whatever it claims it hands on to an owner.
    let helps = Workflow::new(Arc::clone(&template))
        .step("left", workflow.step_handler("left").unwrap())
        .step("right", workflow.step_handler("right").unwrap());
    let helps = Tasker::builder(open(&schema).await).register_partial(helps).build().unwrap();
    let helper = helps.worker().slots(64).start();
    eventually("the helper is there", || async { helper.is_registered() }).await;
    let tasker = Tasker::builder(open(&schema).await).register(workflow).build().unwrap();
    let owners: Vec<_> = (0..OWNERS).map(|_| tasker.worker().slots(1).start()).collect();

    let requests = (0..DIAMONDS).map(|number| TaskRequest::new("diamond", &number).unwrap());
    let submitted = tasker.submit_all(requests.collect()).await.unwrap();
    for receipt in submitted {
        let status = tasker.wait(receipt.unwrap().id, DEADLINE).await.unwrap();
        assert_eq!(status.state, TaskState::Complete, "{status:?}");
    }
    let joins = seen.joins.lock().unwrap().clone();
    assert_eq!(joins.len(), DIAMONDS);
    let again: Vec<_> = joins.iter().filter(|(_, starts)| **starts != 1).collect();
    assert!(again.is_empty(), "not started once: {again:?}");

    let mut database = connect(schema.url()).await;
    let diamonds = DIAMONDS as i64;
    for (sql, expected) in [
        ("SELECT count(*) FROM {}.history", 4 * diamonds),
        ("SELECT count(*) FROM {}.history WHERE kind = 'completed' AND attempt = 1", 4 * diamonds),
        ("SELECT count(*) FROM {}.offer", 0),
    ] {
        assert_eq!(number(&mut database, schema.name(), sql).await, expected, "{sql}");
    }
    let apart = "
        SELECT count(*)
        FROM {}.history AS one
        JOIN {}.history AS other USING (task)
        WHERE one.step = 1 AND other.step = 2 AND one.worker <> other.worker
            AND one.result = 'true' AND other.result = 'true'";
    let apart = number(&mut database, schema.name(), apart).await;
    println!("in {apart} of {DIAMONDS} diamonds two workers ended the parents at once");
    assert!(apart > diamonds / 2, "only {apart}");
    for worker in owners.into_iter().chain([helper]) {
        assert_eq!(worker.rejected_reports(), 0);
        worker.shutdown(Duration::from_secs(5)).await;
    }
}
