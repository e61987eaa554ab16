//! Changes of tasks.

use std::time::Duration;

use super::Handles;
use super::fixture::{
    FIRST, LONG, SECOND, THIRD, apply, beat, by, cancelled, change, claim, claim_of, commit,
    completed, end, ids, living, load, lose, operated, operator, owned, queue, queued, refuse,
    request, template,
};
use crate::history::Author;
use crate::store::{
    Applied, Assumption, Committed, NewTask, News, Route, StoredTask, TaskChange, Then,
};
use crate::{TaskId, TaskState, WorkerId};

/// What there is to compare of a task: standing and rows.
fn standing(task: &StoredTask) -> (u64, Option<WorkerId>, TaskState, usize) {
    (task.version, task.owner, task.state, task.rows.len())
}

pub(super) async fn one_conflict_leaves_the_others(handles: Handles) {
    let (store, template) = (&*handles.here, template("batch"));
    let worker = living(store).await;
    let mut tasks = Vec::new();
    for _ in 0..3 {
        tasks.push(owned(store, worker, &template).await);
    }
    let mut changes: Vec<_> =
        tasks.iter().map(|task| change(task, vec![completed(FIRST, 1)], Then::Keep)).collect();
    changes[1].assumes = Assumption::Owned { version: tasks[1].version + 1 };
    let applied = commit(store, &by(worker), changes).await;
    assert_eq!(applied, [Applied::Yes, Applied::Conflict, Applied::Yes]);
    for (task, rows) in tasks.iter().zip([1, 0, 1]) {
        assert_eq!(load(store, task.id).await.rows.len(), rows);
    }
}

pub(super) async fn changes_are_answered_in_order(handles: Handles) {
    let (store, template) = (&*handles.here, template("order"));
    let worker = living(store).await;
    let task = owned(store, worker, &template).await;
    // Changes of one task in one batch see each other, first to last.
    let changes = vec![
        change(&task, vec![completed(FIRST, 1)], Then::Keep),
        change(&task, vec![completed(THIRD, 1)], Then::Keep),
        change(&task, vec![completed(SECOND, 1)], end(TaskState::Complete)),
        change(&task, vec![completed(SECOND, 2)], Then::Keep),
    ];
    let applied = commit(store, &by(worker), changes).await;
    assert_eq!(applied, [Applied::Yes, Applied::Yes, Applied::Yes, Applied::Conflict]);
    let stored = load(store, task.id).await;
    assert_eq!((stored.rows.len(), stored.state), (3, TaskState::Complete));
}

pub(super) async fn a_wrong_version_conflicts(handles: Handles) {
    let (store, template) = (&*handles.here, template("version"));
    let worker = living(store).await;
    let task = owned(store, worker, &template).await;
    for version in [task.version - 1, task.version + 1, 0, 1 << 40] {
        let assumes = Assumption::Owned { version };
        let rows = vec![completed(FIRST, 1)];
        for then in [Then::Keep, queue(&template, LONG), end(TaskState::Complete)] {
            let wrong = TaskChange { assumes, ..change(&task, rows.clone(), then) };
            refuse(store, &by(worker), wrong).await;
        }
    }
    assert_eq!(standing(&load(store, task.id).await), standing(&task), "nothing was written");
}

pub(super) async fn only_the_owner_changes(handles: Handles) {
    let (store, template) = (&*handles.here, template("owner"));
    let (worker, other) = (living(store).await, living(store).await);
    let task = owned(store, worker, &template).await;
    let rows = || vec![completed(FIRST, 1)];
    for author in [by(other), operator()] {
        refuse(store, &author, change(&task, rows(), Then::Keep)).await;
        refuse(store, &author, change(&task, rows(), end(TaskState::Complete))).await;
    }
    // A task that nobody owns is not an operator's either, whatever its version.
    let free = queued(store, &template).await;
    let free = load(store, free).await;
    for author in [by(worker), operator()] {
        refuse(store, &author, change(&free, rows(), Then::Keep)).await;
    }
    assert_eq!(standing(&load(store, task.id).await), standing(&task));
    apply(store, &by(worker), change(&task, rows(), Then::Keep)).await;
}

pub(super) async fn a_row_exists_once(handles: Handles) {
    let (store, template) = (&*handles.here, template("unique"));
    let worker = living(store).await;
    let task = owned(store, worker, &template).await;
    let rows = vec![completed(FIRST, 1), cancelled(1)];
    apply(store, &by(worker), change(&task, rows, Then::Keep)).await;
    for taken in [completed(FIRST, 1), cancelled(1)] {
        // New rows before and after the one that exists, and an end: all of it is left out.
        let rows = vec![completed(THIRD, 1), taken, completed(THIRD, 2)];
        let ends = change(&task, rows, end(TaskState::Complete));
        refuse(store, &by(worker), ends.clone()).await;
        let theirs = TaskChange { assumes: Assumption::Unmoved { version: task.version }, ..ends };
        refuse(store, &operator(), theirs).await;
    }
    let stored = load(store, task.id).await;
    assert_eq!(stored.rows.len(), 2, "a change that conflicts is left out whole");
    assert_eq!(standing(&stored).0, task.version);
    assert_eq!((stored.state, stored.owner), (TaskState::InProgress, Some(worker)));
    // The same number in another log is another row.
    apply(store, &by(worker), change(&task, vec![completed(THIRD, 1)], Then::Keep)).await;
}

pub(super) async fn of_two_equal_rows_in_a_batch_one_stands(handles: Handles) {
    let (store, template) = (&*handles.here, template("twins"));
    let worker = living(store).await;
    let task = owned(store, worker, &template).await;
    let once = change(&task, vec![completed(FIRST, 1)], Then::Keep);
    let applied = commit(store, &by(worker), vec![once.clone(), once]).await;
    assert_eq!(applied, [Applied::Yes, Applied::Conflict]);
    assert_eq!(load(store, task.id).await.rows.len(), 1);
}

pub(super) async fn racing_commits_add_a_row_once(handles: Handles) {
    let template = template("race");
    let worker = living(&*handles.here).await;
    let task = owned(&*handles.here, worker, &template).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..40 {
        let store = if number % 2 == 0 { handles.here.clone() } else { handles.there.clone() };
        let rows = vec![completed(THIRD, number + 2), completed(FIRST, 1)];
        let once = change(&task, rows, Then::Keep);
        calls.spawn(async move { commit(&*store, &by(worker), vec![once]).await });
    }
    let applied = calls.join_all().await.concat();
    assert_eq!(applied.iter().filter(|applied| **applied == Applied::Yes).count(), 1);
    assert_eq!(load(&*handles.there, task.id).await.rows.len(), 2, "losers leave no row behind");
}

pub(super) async fn a_lost_lease_applies_nothing(handles: Handles) {
    let (store, template) = (&*handles.here, template("fence"));
    let lost = living(store).await;
    let task = owned(store, lost, &template).await;
    lose(&*handles.there, lost).await;
    let retired = living(store).await;
    store.renew(beat(retired, None)).await.unwrap();
    let before = load(store, task.id).await;
    for worker in [lost, retired, WorkerId::new()] {
        // Even what anybody might do is refused to the dead: the lease is looked at first.
        let changes = vec![
            change(&before, vec![completed(FIRST, 1)], Then::Keep),
            operated(&before, vec![completed(THIRD, 1)], end(TaskState::Complete)),
        ];
        let committed = store.commit(&by(worker), changes).await.unwrap();
        assert_eq!(committed, Committed::LeaseLost);
        let empty = store.commit(&by(worker), Vec::new()).await.unwrap();
        assert_eq!(empty, Committed::LeaseLost, "nothing to apply, and no lease");
    }
    assert_eq!(standing(&load(store, task.id).await), standing(&before));
}

pub(super) async fn keep_leaves_the_version(handles: Handles) {
    let (store, template) = (&*handles.here, template("keep"));
    let worker = living(store).await;
    let task = owned(store, worker, &template).await;
    for seq in 1..=3 {
        apply(store, &by(worker), change(&task, vec![completed(FIRST, seq)], Then::Keep)).await;
    }
    let stored = load(store, task.id).await;
    assert_eq!(stored.version, task.version);
    assert_eq!((stored.owner, stored.state), (Some(worker), TaskState::InProgress));
    assert_eq!((stored.wake_at, stored.ended_at), (None, None));
}

pub(super) async fn queue_releases(handles: Handles) {
    let (store, template) = (&*handles.here, template("release"));
    let worker = living(store).await;
    let task = owned(store, worker, &template).await;
    let release = change(&task, vec![completed(FIRST, 1)], queue(&template, Duration::ZERO));
    apply(store, &by(worker), release.clone()).await;
    let stored = load(store, task.id).await;
    assert_eq!((stored.version, stored.owner), (task.version + 1, None));
    assert!(stored.wake_at.is_some());
    refuse(store, &by(worker), release).await;
    let work = claim_of(store, worker, &template, 5).await;
    assert_eq!(ids(&work.tasks), [task.id], "it is in the queue once");
    assert_eq!(work.tasks[0].version, task.version + 2);
    assert!(work.news.is_empty(), "who gives a task back needs not be told: {:?}", work.news);
}

pub(super) async fn queue_waits_and_routes(handles: Handles) {
    let (store, template) = (&*handles.here, template("later"));
    let worker = living(store).await;
    let task = owned(store, worker, &template).await;
    let route = Route::to_handler(&template, "rare");
    let then = Then::Queue { state: TaskState::Pending, wake_in: LONG, route: route.clone() };
    let committed = store.commit(&by(worker), vec![change(&task, Vec::new(), then)]).await.unwrap();
    let Committed::Changes { now, applied } = committed else { panic!("{committed:?}") };
    assert_eq!(applied, [Applied::Yes]);
    let stored = load(store, task.id).await;
    assert_eq!(stored.state, TaskState::Pending, "its state is what the change says");
    assert_eq!(stored.wake_at, now.checked_add(LONG).ok(), "counted from the commit");
    let work = claim(store, request(worker, &[route], 5, 0)).await;
    assert!(work.tasks.is_empty());
    assert!(work.next_in.is_some_and(|next| next > LONG / 2), "{:?}", work.next_in);
    assert_eq!(claim_of(store, worker, &template, 5).await.next_in, None);
}

pub(super) async fn a_held_task_waits_for_a_person(handles: Handles) {
    let (store, template) = (&*handles.here, template("held"));
    let worker = living(store).await;
    let hold = || Then::Hold { state: TaskState::Paused };
    // By its owner, by an operator, while it is queued, and after its end.
    let task = owned(store, worker, &template).await;
    apply(store, &by(worker), change(&task, vec![completed(FIRST, 1)], hold())).await;
    let taken = owned(store, worker, &template).await;
    apply(&*handles.there, &operator(), operated(&taken, Vec::new(), hold())).await;
    let news = claim_of(store, worker, &template, 0).await.news;
    assert!(matches!(news[..], [News::Revoked { task }] if task == taken.id), "{news:?}");
    let waits = load(store, queued(store, &template).await).await;
    apply(&*handles.there, &operator(), operated(&waits, Vec::new(), hold())).await;
    let ended = owned(store, worker, &template).await;
    apply(store, &by(worker), change(&ended, Vec::new(), end(TaskState::Error))).await;
    let ended = load(store, ended.id).await;
    apply(&*handles.there, &operator(), operated(&ended, Vec::new(), hold())).await;

    for before in [task, taken, waits, ended] {
        let held = load(&*handles.there, before.id).await;
        let expected = (before.version + 1, None, TaskState::Paused, held.rows.len());
        assert_eq!(standing(&held), expected);
        assert_eq!((held.ended_at, held.wake_at, held.route.clone()), (None, None, None));
        let work = claim_of(store, worker, &template, 10).await;
        assert!(work.tasks.is_empty() && work.next_in.is_none(), "it is in no queue: {work:?}");
        apply(store, &operator(), operated(&held, Vec::new(), queue(&template, LONG))).await;
        assert!(load(store, before.id).await.wake_at.is_some(), "until somebody queues it");
        let held = load(store, before.id).await;
        apply(store, &operator(), operated(&held, Vec::new(), end(TaskState::Cancelled))).await;
    }
}

pub(super) async fn end_leaves_the_queue(handles: Handles) {
    let (store, template) = (&*handles.here, template("end"));
    let worker = living(store).await;
    for (state, degraded) in
        [(TaskState::Complete, true), (TaskState::Complete, false), (TaskState::Error, false)]
    {
        let task = owned(store, worker, &template).await;
        let ends = change(&task, vec![completed(FIRST, 1)], end(state));
        let ends = TaskChange { degraded: Some(degraded), ..ends };
        let committed = store.commit(&by(worker), vec![ends.clone()]).await.unwrap();
        let Committed::Changes { now, .. } = committed else { panic!("{committed:?}") };
        let stored = load(store, task.id).await;
        assert_eq!((stored.state, stored.degraded), (state, degraded));
        assert_eq!((stored.version, stored.owner), (task.version + 1, None));
        assert_eq!((stored.ended_at, stored.wake_at), (Some(now), None));
        refuse(store, &by(worker), ends).await;
    }
    let free = queued(store, &template).await;
    let free = load(store, free).await;
    apply(store, &operator(), operated(&free, Vec::new(), end(TaskState::Cancelled))).await;
    let work = claim_of(store, worker, &template, 5).await;
    assert!(work.tasks.is_empty() && work.news.is_empty() && work.next_in.is_none(), "{work:?}");
}

pub(super) async fn a_task_is_degraded_as_soon_as_it_is_said(handles: Handles) {
    let (store, template) = (&*handles.here, template("degraded"));
    let worker = living(store).await;
    let wake_in = Duration::ZERO;
    let queued = Then::Queue { state: TaskState::InProgress, wake_in, route: Route::of(&template) };
    let held = Then::Hold { state: TaskState::Paused };
    for then in [Then::Keep, queued, held, end(TaskState::Complete)] {
        let task = owned(store, worker, &template).await;
        let is = async |degraded, scene: &str| {
            let stored = load(&*handles.there, task.id).await;
            assert_eq!(stored.degraded, degraded, "{then:?}, {scene}");
            stored
        };
        is(false, "before").await;
        let ends = change(&task, vec![completed(FIRST, 1)], then.clone());
        let moved = u64::from(then != Then::Keep);
        apply(store, &by(worker), TaskChange { degraded: Some(true), ..ends }).await;
        let stored = is(true, "said").await;
        assert_eq!(stored.version, task.version + moved);
        assert_eq!(stored.owner.is_some(), then == Then::Keep);
        let as_before = operated(&stored, Vec::new(), end(TaskState::Complete));
        apply(store, &operator(), as_before).await;
        let stored = is(true, "as before").await;
        let not_any_more = operated(&stored, Vec::new(), end(TaskState::Complete));
        apply(store, &operator(), TaskChange { degraded: Some(false), ..not_any_more }).await;
        is(false, "not any more").await;
    }
    // Among others, and without a row.
    let tasks = [owned(store, worker, &template).await, owned(store, worker, &template).await];
    let marks = TaskChange { degraded: Some(true), ..change(&tasks[0], Vec::new(), Then::Keep) };
    let stale = TaskChange { assumes: Assumption::Owned { version: 99 }, ..marks.clone() };
    let other = change(&tasks[1], vec![completed(FIRST, 1)], Then::Keep);
    let applied = commit(store, &by(worker), vec![other, stale, marks]).await;
    assert_eq!(applied, [Applied::Yes, Applied::Conflict, Applied::Yes]);
    let degraded =
        [load(store, tasks[0].id).await.degraded, load(store, tasks[1].id).await.degraded];
    assert_eq!(degraded, [true, false]);
}

pub(super) async fn an_operator_takes_a_task_from_its_owner(handles: Handles) {
    let template = template("revoked");
    let worker = living(&*handles.here).await;
    let ends = end(TaskState::Cancelled);
    for then in [ends, queue(&template, LONG)] {
        let task = owned(&*handles.here, worker, &template).await;
        let moves = operated(&task, vec![cancelled(1)], then);
        apply(&*handles.there, &operator(), moves).await;
        let stored = load(&*handles.here, task.id).await;
        assert_eq!((stored.version, stored.owner), (task.version + 1, None));
        assert_eq!(stored.rows[0].author, operator());
        let late = change(&task, vec![completed(FIRST, 1)], end(TaskState::Complete));
        refuse(&*handles.here, &by(worker), late).await;
        let news = claim_of(&*handles.here, worker, &template, 0).await.news;
        assert!(matches!(news[..], [News::Revoked { task: id }] if id == task.id), "{news:?}");
    }
}

pub(super) async fn an_operator_assumes_that_nothing_moved(handles: Handles) {
    let (store, template) = (&*handles.here, template("unmoved"));
    let worker = living(store).await;
    let ends = |task: &StoredTask| operated(task, vec![cancelled(1)], end(TaskState::Cancelled));

    let id = queued(store, &template).await;
    let read = load(store, id).await;
    let claimed = claim_of(store, worker, &template, 1).await.tasks.remove(0);
    refuse(store, &operator(), ends(&read)).await;
    let read = load(store, id).await;
    apply(store, &by(worker), change(&claimed, Vec::new(), queue(&template, LONG))).await;
    refuse(store, &operator(), ends(&read)).await;
    let read = load(store, id).await;
    apply(store, &operator(), operated(&read, Vec::new(), queue(&template, LONG))).await;
    refuse(store, &operator(), ends(&read)).await;

    // What the owner records without moving the task does not stand in an operator's way.
    let task = owned(store, worker, &template).await;
    apply(store, &by(worker), change(&task, vec![completed(FIRST, 1)], Then::Keep)).await;
    apply(store, &operator(), ends(&task)).await;
    refuse(store, &operator(), ends(&task)).await;
    assert_eq!(load(store, task.id).await.rows.len(), 2);
}

pub(super) async fn an_operator_ends_and_requeues(handles: Handles) {
    let (store, template) = (&*handles.here, template("again"));
    let worker = living(store).await;
    let task = owned(store, worker, &template).await;
    apply(store, &by(worker), change(&task, Vec::new(), end(TaskState::Error))).await;
    let failed = load(store, task.id).await;
    let then = Then::Queue {
        state: TaskState::Pending,
        wake_in: Duration::ZERO,
        route: Route::of(&template),
    };
    apply(store, &operator(), operated(&failed, vec![cancelled(1)], then)).await;
    let stored = load(store, task.id).await;
    assert_eq!((stored.state, stored.version), (TaskState::Pending, failed.version + 1));
    let work = claim_of(store, worker, &template, 5).await;
    assert_eq!(ids(&work.tasks), [task.id]);
    assert_eq!(work.tasks[0].version, failed.version + 2);
    assert!(work.news.is_empty(), "it was nobody's: {:?}", work.news);
    // A task that waits is moved without being in the queue twice.
    let again = owned(store, worker, &template).await;
    apply(store, &by(worker), change(&again, Vec::new(), queue(&template, LONG))).await;
    let read = load(store, again.id).await;
    let sooner = operated(&read, Vec::new(), queue(&template, Duration::ZERO));
    apply(store, &operator(), sooner).await;
    let work = claim_of(store, worker, &template, 5).await;
    assert_eq!(ids(&work.tasks), [again.id]);
    assert_eq!(work.next_in, None, "its earlier place in the queue is gone");
}

pub(super) async fn an_unknown_task_conflicts(handles: Handles) {
    let (store, template) = (&*handles.here, template("unknown"));
    let worker = living(store).await;
    let task = owned(store, worker, &template).await;
    let known = change(&task, vec![completed(FIRST, 1)], Then::Keep);
    for assumes in [
        Assumption::Owned { version: 0 },
        Assumption::Unmoved { version: 0 },
        Assumption::OfferHeld { step: FIRST, seq: 1 },
    ] {
        let unknown = TaskChange { task: TaskId::new(), assumes, ..known.clone() };
        refuse(store, &by(worker), unknown).await;
    }
    apply(store, &by(worker), known).await;
}

pub(super) async fn what_was_applied_is_seen_by_everybody(handles: Handles) {
    let template = template("durable");
    let worker = living(&*handles.here).await;
    let task = owned(&*handles.here, worker, &template).await;
    for seq in 1..=20 {
        let rows = vec![completed(FIRST, seq)];
        apply(&*handles.here, &by(worker), change(&task, rows, Then::Keep)).await;
        assert_eq!(load(&*handles.there, task.id).await.rows.len(), seq as usize);
    }
}

pub(super) async fn nothing_committed_is_nothing_applied(handles: Handles) {
    let worker = living(&*handles.here).await;
    for author in [by(worker), Author::Operator("alice".to_owned())] {
        assert!(commit(&*handles.here, &author, Vec::new()).await.is_empty());
    }
}

pub(super) async fn a_large_batch_is_one_commit(handles: Handles) {
    const TASKS: usize = 500;
    let (store, template) = (&*handles.here, template("large"));
    let worker = living(store).await;
    let tasks: Vec<NewTask> = (0..TASKS).map(|_| super::fixture::new_task(&template)).collect();
    let all: Vec<_> = tasks.iter().map(|task| task.id).collect();
    let created = store.create(tasks, Some(worker)).await.unwrap();
    assert_eq!(created.len(), TASKS);
    let sample = load(store, all[0]).await;
    let rows = || vec![completed(FIRST, 1), completed(THIRD, 1), completed(SECOND, 1)];
    let changes = all.iter().map(|id| {
        let ends = change(&sample, rows(), end(TaskState::Complete));
        TaskChange { task: *id, ..ends }
    });
    let committed = store.commit(&by(worker), changes.collect()).await.unwrap();
    let Committed::Changes { now, applied } = committed else { panic!("{committed:?}") };
    assert_eq!(applied, vec![Applied::Yes; TASKS]);
    for id in [all[0], all[TASKS / 2], all[TASKS - 1]] {
        let stored = load(store, id).await;
        assert_eq!((stored.rows.len(), stored.state), (3, TaskState::Complete));
        assert!(stored.rows.iter().all(|row| row.at == now), "one transaction, one time");
    }
}
