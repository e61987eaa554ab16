//! Every action, raced against completion, time-out and another operator.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use tasker_core::{
    Action, ActionKind, Json, MemoryStore, OperateError, Operator, RetryPolicy, StepContext,
    StepTemplate, TaskRequest, TaskState, TaskTemplate, Tasker, Workflow, step_fn,
};

/// So often each action is raced.
const TIMES: u32 = 1000;

fn tasker() -> Tasker {
    let once = || RetryPolicy::none();
    let template = TaskTemplate::builder("race")
        .step(
            StepTemplate::new("first")
                .retry(once())
                .timeout(Duration::from_millis(2))
                .compensate_with("undo"),
        )
        .step(StepTemplate::new("second").after("first").retry(once()))
        .build()
        .unwrap();
    // It ends at once, or a little before or after its time-out.
    let first = step_fn(|step: StepContext| async move {
        match step.context::<u32>()? % 3 {
            0 => {}
            1 => tokio::time::sleep(Duration::from_millis(2)).await,
            _ => tokio::task::yield_now().await,
        }
        Ok(())
    });
    let workflow = Workflow::new(template)
        .step("first", first)
        .step("second", step_fn(|_: StepContext| async { Ok(()) }))
        .step("undo", step_fn(|_: StepContext| async { Ok(()) }));
    Tasker::builder(MemoryStore::new()).register(workflow).build().unwrap()
}

fn action(kind: ActionKind) -> Action {
    let step = "first".to_owned();
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

/// One task, one action and one other operator; how many actions were accepted.
async fn race(tasker: &Tasker, kind: ActionKind, number: u32) -> usize {
    let id = tasker.submit(TaskRequest::new("race", &number).unwrap()).await.unwrap().id;
    let other = ActionKind::ALL[number as usize % ActionKind::ALL.len()];
    let orders = [kind, other].map(|kind| {
        let tasker = tasker.clone();
        tokio::spawn(async move {
            for _ in 0..number % 7 {
                tokio::task::yield_now().await;
            }
            tasker.operate(id, action(kind), &Operator::new("alice", "race")).await
        })
    });
    let mut accepted = 0;
    for order in orders {
        match order.await.unwrap() {
            Ok(_) => accepted += 1,
            Err(OperateError::Refused(_)) => {}
            Err(error) => panic!("{kind} and {other}: {error}"),
        }
    }
    if tasker.status(id).await.unwrap().unwrap().state == TaskState::Paused {
        let resumed = Operator::new("bob", "go on");
        tasker.operate(id, Action::Resume, &resumed).await.unwrap();
        accepted += 1;
    }
    let ended = tasker.wait(id, Duration::from_secs(60)).await.unwrap();
    let history = tasker.history(id).await.unwrap().unwrap();
    let on_record = history.iter().filter(|entry| entry.after.is_some()).count();
    assert_eq!(on_record, accepted, "{kind} and {other}: {history:?}");
    for step in &ended.steps {
        let of_step = history.iter().filter(|entry| entry.step.as_ref() == Some(&step.name));
        let settled = of_step.filter(|entry| matches!(entry.event, "completed" | "failed"));
        let mut attempts: Vec<_> = settled.filter_map(|entry| entry.attempt).collect();
        let all = attempts.len();
        attempts.dedup();
        assert_eq!(attempts.len(), all, "an attempt has one outcome");
    }
    assert_eq!(
        tasker.why(id).await.unwrap().is_none(),
        match ended.state {
            TaskState::Error | TaskState::Cancelled => false,
            TaskState::Complete | TaskState::Compensated | TaskState::ResolvedManually => true,
            state => panic!("{state} is no end"),
        }
    );
    accepted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_that_is_accepted_is_on_record_once_and_the_task_ends() {
    let tasker = tasker();
    let worker = tasker.worker().slots(64).start();
    for kind in ActionKind::ALL {
        let mut races = tokio::task::JoinSet::new();
        for number in 0..TIMES {
            let tasker = tasker.clone();
            races.spawn(async move { race(&tasker, kind, number).await });
        }
        while let Some(accepted) = races.join_next().await {
            accepted.unwrap();
        }
    }
    worker.shutdown(Duration::from_secs(10)).await;
}
