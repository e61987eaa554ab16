//! After a race: nothing is lost, every task comes to an end or says why not.

use std::sync::Arc;
use std::time::Duration;

use super::stage::{End, FIELD, Scene, beat, claim, commit_all, register, settled};
use crate::TaskState;
use crate::decide;
use crate::history::Author;
use crate::snapshot::Snapshot;
use crate::store::{Assumption, StateStore, TaskChange, Then};
use crate::why::{TaskCause, Why};

/// Lets another worker go on with all tasks of a race, whose steps all succeed from here on.
pub(super) async fn to_the_end(store: &Arc<dyn StateStore>, scene: &Scene) {
    // What the first worker still owns is free; it may be gone already.
    beat(&**store, scene.owner, None).await;
    let worker = register(&**store, Duration::from_secs(3600)).await;
    loop {
        let claimed = claim(&**store, worker, &scene.template, FIELD).await;
        if claimed.is_empty() {
            break;
        }
        let changes = claimed.into_iter().map(|task| go_on(task, scene)).collect();
        commit_all(&**store, &Author::Worker(worker), changes).await;
    }
    beat(&**store, worker, None).await;
    for entrant in &scene.entrants {
        let task = store.load(entrant.id).await.unwrap().unwrap();
        let why = Why::of(&task);
        match task.state {
            TaskState::Paused => {
                let cause = why.map(|why| why.cause);
                assert!(matches!(cause, Some(TaskCause::Paused { .. })), "{cause:?}");
            }
            TaskState::Error | TaskState::Cancelled => assert!(why.is_some(), "{task:?}"),
            TaskState::Complete | TaskState::Compensated | TaskState::ResolvedManually => {}
            TaskState::Pending | TaskState::InProgress | TaskState::Compensating => {
                panic!("nobody is handed the task any more: {why:?}\n{task:#?}")
            }
        }
    }
}

/// All that a worker does with a task until it lets it go, as one change.
fn go_on(mut task: Snapshot, scene: &Scene) -> TaskChange {
    let (id, assumes) = (task.id(), Assumption::Owned { version: task.version() });
    let mut change = decide::settle(&mut task, Vec::new(), &[], scene.now);
    while change.then == Then::Keep {
        let steps = task.take_runnable(scene.now);
        assert!(!steps.is_empty(), "its owner keeps a task that has nothing to do: {task:#?}");
        for step in steps {
            let next = settled(&mut task, step, End::Well, scene.now);
            change.rows.extend(next.rows);
            change.then = next.then;
        }
    }
    TaskChange { task: id, assumes, ..change }
}
