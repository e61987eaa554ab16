//! Callers that stop waiting.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::Handles;
use super::fixture::{
    FIRST, THIRD, apply, by, change, claim, claim_of, commit, completed, end, ids, keyed, living,
    load, new_task, owned, page, put, request, template, until, write,
};
use crate::TaskState;
use crate::store::{Applied, ClaimRequest, Collection, Created, Route, StateStore, Then};

/// More awaits than a call of a store has.
const POLLS: usize = 24;

/// Polls a future so many times at most, then drops it.
async fn polled<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The store goes on as if nothing had been.
async fn still_works(store: &dyn StateStore) {
    let template = template("after");
    let worker = living(store).await;
    let task = owned(store, worker, &template).await;
    let ends = change(&task, vec![completed(FIRST, 1)], end(TaskState::Complete));
    apply(store, &by(worker), ends).await;
    assert_eq!(load(store, task.id).await.state, TaskState::Complete);
}

pub(super) async fn a_dropped_create_happens_wholly_or_not_at_all(handles: Handles) {
    let template = template("create");
    let worker = living(&*handles.here).await;
    for polls in 0..POLLS {
        let key = format!("key {polls}");
        let dropped = keyed(&template, &key);
        let first = dropped.id;
        let answer = polled(polls, handles.here.create(vec![dropped], Some(worker))).await;
        let again = keyed(&template, &key);
        let second = again.id;
        let created = handles.here.create(vec![again], None).await.unwrap();
        let (id, other) = match created[..] {
            [Created::New { .. }] => (second, first),
            [Created::Existing { id, .. }] => (id, second),
            _ => panic!("{created:?}"),
        };
        assert!(answer.is_none() || id == first, "what was answered is durable");
        load(&*handles.there, id).await;
        assert!(handles.there.load(other).await.unwrap().is_none(), "a key has one task");
    }
    still_works(&*handles.here).await;
    still_works(&*handles.there).await;
}

pub(super) async fn a_dropped_claim_is_recovered(handles: Handles) {
    let template = template("claim");
    let worker = living(&*handles.here).await;
    let tasks: Vec<_> = (0..POLLS).map(|_| new_task(&template)).collect();
    let stored: BTreeSet<_> = tasks.iter().map(|task| task.id).collect();
    handles.here.create(tasks, None).await.unwrap();
    let mut got = Vec::new();
    for polls in 0..POLLS {
        let asked = request(worker, &[Route::of(&template)], 1, 0);
        if let Some(answer) = polled(polls, handles.here.claim(asked)).await {
            let crate::store::Claimed::Work(work) = answer.unwrap() else { panic!("lease lost") };
            got.extend(ids(&work.tasks));
        }
    }
    // A call that was given up may still be on its way, so one more look may be needed.
    until("every task is in the worker's hands", async || {
        let holding = Some(got.clone());
        let asked = ClaimRequest { holding, ..request(worker, &[Route::of(&template)], POLLS, 0) };
        got.extend(ids(&claim(&*handles.here, asked).await.tasks));
        (got.len() >= POLLS).then_some(())
    })
    .await;
    assert_eq!(got.len(), POLLS, "none was handed out twice");
    assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), stored);
    let other = living(&*handles.there).await;
    assert!(claim_of(&*handles.there, other, &template, 10).await.tasks.is_empty());
    still_works(&*handles.here).await;
    still_works(&*handles.there).await;
}

pub(super) async fn a_dropped_commit_happens_wholly_or_not_at_all(handles: Handles) {
    let template = template("commit");
    let worker = living(&*handles.here).await;
    for polls in 0..POLLS {
        let task = owned(&*handles.here, worker, &template).await;
        let rows = vec![completed(FIRST, 1), completed(THIRD, 1)];
        let dropped = change(&task, rows.clone(), Then::Keep);
        let author = by(worker);
        let answer = polled(polls, handles.here.commit(&author, vec![dropped.clone()])).await;
        let applied = commit(&*handles.here, &author, vec![dropped]).await;
        assert!(answer.is_none() || applied == [Applied::Conflict], "what was answered stands");
        let stored = load(&*handles.there, task.id).await;
        let got: Vec<_> = stored.rows.into_iter().map(|row| row.transition).collect();
        assert_eq!(got, rows, "both rows, once");
        let ends = change(&task, Vec::new(), end(TaskState::Complete));
        apply(&*handles.there, &author, ends).await;
    }
    still_works(&*handles.here).await;
    still_works(&*handles.there).await;
}

pub(super) async fn a_dropped_write_happens_wholly_or_not_at_all(handles: Handles) {
    for polls in 0..POLLS {
        let keys = ["a", "b"].map(|key| format!("{key} {polls}"));
        let changes = || keys.iter().map(|key| put(Collection::System, key, None, "up")).collect();
        let answer = polled(polls, handles.here.write_documents(changes())).await;
        let applied = write(&*handles.there, changes()).await;
        assert_eq!(applied[0], applied[1], "both or none");
        assert!(answer.is_none() || applied[0] == Applied::Conflict, "what was answered stands");
        let found = page(&*handles.here, Collection::System, None, None, 2).await;
        assert!(found.iter().all(|document| keys.contains(&document.key)), "{found:?}");
    }
    still_works(&*handles.here).await;
    still_works(&*handles.there).await;
}

pub(super) async fn a_dropped_wait_leaves_no_trace(handles: Handles) {
    let worker = living(&*handles.here).await;
    for polls in 0..4 {
        let wait = handles.here.wait_for_work(worker, Duration::from_secs(600));
        let _ = polled(polls, tokio::time::timeout(Duration::from_millis(5), wait)).await;
        let read = handles.here.load(crate::TaskId::new());
        assert!(!matches!(polled(polls, read).await, Some(Ok(Some(_)))));
        let look = handles.here.take_over(10);
        let _ = polled(polls, look).await;
    }
    still_works(&*handles.here).await;
}
