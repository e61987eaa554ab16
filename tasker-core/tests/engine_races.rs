//! Operators' actions against a running worker, whose handlers end at the same moment.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use tasker_core::history::Occurrence;
use tasker_core::store::StateStore;
use tasker_core::{
    Action, ActionKind, Json, MemoryStore, OperateError, Operator, RetryPolicy, StepContext,
    StepError, StepTemplate, TaskId, TaskRequest, TaskState, TaskTemplate, Tasker, Workflow,
    step_fn,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const LONG: Duration = Duration::from_secs(60);
const ROUNDS: usize = 20;
/// So many are raced at once: a thousand of each kind of action.
const FIELD: usize = 50;
/// How often an operator that is refused tries again.
const PATIENCE: usize = 40;

/// Two steps, of which the second ends once there is a permit; every other task fails by it.
fn workflow(started: &Arc<Semaphore>, gate: &Arc<Semaphore>) -> Workflow {
    let once = RetryPolicy::none;
    let template = TaskTemplate::builder("raced")
        .step(StepTemplate::new("first").retry(once()).compensate_with("undo"))
        .step(StepTemplate::new("middle").after("first").retry(once()))
        .build()
        .unwrap();
    let (started, gate) = (started.clone(), gate.clone());
    let middle = step_fn(move |step: StepContext| {
        let (started, gate) = (started.clone(), gate.clone());
        async move {
            started.add_permits(1);
            gate.acquire().await.unwrap().forget();
            let number: usize = step.context()?;
            if number.is_multiple_of(2) {
                Ok(())
            } else {
                Err(StepError::permanent("ODD", "it is odd"))
            }
        }
    });
    Workflow::new(template)
        .step("first", step_fn(|_: StepContext| async { Ok(()) }))
        .step("middle", middle)
        .step("undo", step_fn(|_: StepContext| async { Ok(()) }))
}

fn action(kind: ActionKind) -> Action {
    let step = "middle".to_owned();
    match kind {
        ActionKind::Cancel => Action::Cancel,
        ActionKind::Retry => Action::Retry,
        ActionKind::RetryStep => Action::RetryStep { step },
        ActionKind::RetryFrom => Action::RetryFrom { step },
        ActionKind::ResolveStep => Action::ResolveStep { step, result: Json::null() },
        ActionKind::SkipStep => Action::SkipStep { step },
        ActionKind::EditContext => Action::EditContext { context: Json::of(&0).unwrap() },
        ActionKind::Pause => Action::Pause,
        ActionKind::Resume => Action::Resume,
        ActionKind::SetRetryLimit => Action::SetRetryLimit { step, limit: 2 },
        ActionKind::Compensate => Action::Compensate,
        ActionKind::Resolve => Action::Resolve,
    }
}

/// On threads, in real time: a race needs some.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_action_races_the_end_of_a_step() {
    let (started, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let store = MemoryStore::new();
    let workflow = workflow(&started, &gate);
    let tasker = Tasker::builder(store.clone()).register(workflow).build().unwrap();
    for kind in ActionKind::ALL {
        for round in 0..ROUNDS {
            let worker = tasker.worker().slots(FIELD).start();
            let mut tasks = Vec::new();
            for number in 0..FIELD {
                let request = TaskRequest::new("raced", &number).unwrap();
                tasks.push(tasker.submit(request).await.unwrap().id);
            }
            // All of them stand at the gate.
            let at_the_gate = started.acquire_many(FIELD as u32);
            tokio::time::timeout(LONG, at_the_gate).await.unwrap().unwrap().forget();
            // What runs again finds the gate open. Who comes first mostly wins.
            let open = || gate.add_permits(100 * FIELD);
            if round.is_multiple_of(2) {
                open();
            }
            let mut operators = JoinSet::new();
            for id in tasks.clone() {
                for name in ["alice", "bob"] {
                    let (tasker, operator) = (tasker.clone(), Operator::new(name, "a race"));
                    operators.spawn(async move {
                        // What is not legal yet may be in a moment.
                        for _ in 0..PATIENCE {
                            match tasker.operate(id, action(kind), &operator).await {
                                Ok(_) => return Some(id),
                                Err(OperateError::Refused(_)) => tokio::task::yield_now().await,
                                Err(error) => panic!("{kind}: {error}"),
                            }
                        }
                        None
                    });
                }
            }
            if round % 2 == 1 {
                open();
            }
            let accepted: Vec<TaskId> = operators.join_all().await.into_iter().flatten().collect();
            for id in tasks {
                let accepted = accepted.iter().filter(|it| **it == id).count();
                ended(&tasker, &store, id, accepted).await;
            }
            worker.shutdown(LONG).await;
            gate.forget_permits(usize::MAX);
            started.forget_permits(usize::MAX);
        }
    }
}

/// The task comes to an end, and what was accepted is on record, once each.
async fn ended(tasker: &Tasker, store: &MemoryStore, id: TaskId, mut accepted: usize) {
    let mut status = tasker.status(id).await.unwrap().unwrap();
    if status.state == TaskState::Paused {
        let carol = Operator::new("carol", "the race is over");
        tasker.operate(id, Action::Resume, &carol).await.unwrap();
        accepted += 1;
    }
    status = match tasker.wait(id, LONG).await {
        Ok(status) => status,
        Err(error) => panic!("{error}: {:?}", tasker.status(id).await),
    };
    assert!(status.state.is_terminal());
    let task = store.load(id).await.unwrap().unwrap();
    let recorded = task.rows.iter().filter_map(|row| match &row.transition.what {
        Occurrence::Operated(operation) => Some(operation),
        _ => None,
    });
    let recorded: Vec<_> = recorded.collect();
    assert_eq!(recorded.len(), accepted, "one record for each accepted action: {recorded:#?}");
    for operation in recorded {
        let (before, after) = (operation.before.state, operation.after.state);
        assert!(before == after || before.may_become(after), "{before} to {after}");
    }
}
