//! Looking at tasks, and waiting for them.

use std::sync::Arc;
use std::time::Duration;

use super::Handles;
use super::fixture::{
    FIRST, LONG, THIRD, apply, by, change, completed, end, ids, living, load, new_task, operated,
    operator, owned, queue, queued, template, until,
};
use crate::store::{StateStore, TaskChange, TaskQuery, Then};
use crate::{StepTemplate, TaskId, TaskState, TaskTemplate};

pub(super) async fn load_of_nothing_is_none(handles: Handles) {
    assert!(handles.here.load(TaskId::new()).await.unwrap().is_none());
}

pub(super) async fn load_is_consistent(handles: Handles) {
    let template = template("snapshot");
    let worker = living(&*handles.here).await;
    let task = owned(&*handles.here, worker, &template).await;
    let reader = tokio::spawn({
        let store = handles.there.clone();
        let id = task.id;
        async move {
            loop {
                let seen = load(&*store, id).await;
                let of =
                    |step| seen.rows.iter().filter(|row| row.transition.step == Some(step)).count();
                assert_eq!(of(FIRST), of(THIRD), "rows of one commit are seen together");
                // Each round adds a row to each log and releases; then the task is claimed again.
                assert_eq!(of(FIRST) as u64, seen.version / 2, "rows and version belong together");
                assert_eq!(seen.owner.is_some(), seen.version % 2 == 1, "so does the owner");
                assert!(seen.rows.iter().all(|row| row.at <= seen.now));
                if seen.state.is_terminal() {
                    assert_eq!(of(FIRST), 40, "an ended task has all its rows");
                    return;
                }
            }
        }
    });
    let mut task = task;
    for seq in 1..=40 {
        let rows = vec![completed(FIRST, seq), completed(THIRD, seq)];
        let then =
            if seq == 40 { end(TaskState::Complete) } else { queue(&template, Duration::ZERO) };
        apply(&*handles.here, &by(worker), change(&task, rows, then)).await;
        if seq < 40 {
            task = super::fixture::claim_of(&*handles.here, worker, &template, 1)
                .await
                .tasks
                .remove(0);
        }
    }
    reader.await.unwrap();
}

pub(super) async fn load_tells_the_lease_of_the_owner(handles: Handles) {
    let template = template("leased");
    let waiting = queued(&*handles.here, &template).await;
    assert_eq!(load(&*handles.there, waiting).await.lease_until, None, "nobody owns it");
    let worker = living(&*handles.here).await;
    let task = owned(&*handles.here, worker, &template).await;
    let seen = load(&*handles.there, task.id).await;
    let lease = seen.lease_until.expect("its owner lives").duration_since(seen.now);
    let lease = Duration::try_from(lease).expect("it has not run out");
    assert!(lease <= LONG && lease > LONG / 2, "{lease:?}");
}

async fn found(store: &dyn StateStore, query: TaskQuery) -> Vec<TaskId> {
    store.find(query).await.unwrap().into_iter().map(|line| line.id).collect()
}

pub(super) async fn find_is_newest_first_and_pages(handles: Handles) {
    let template = template("pages");
    let mut stored = Vec::new();
    for _ in 0..7 {
        stored.insert(0, queued(&*handles.here, &template).await);
    }
    assert_eq!(found(&*handles.there, TaskQuery::default()).await, stored);
    let mut pages = Vec::new();
    let mut before = None;
    loop {
        let query = TaskQuery { before, limit: 3, ..TaskQuery::default() };
        let page = found(&*handles.here, query).await;
        before = page.last().copied();
        if page.is_empty() {
            break;
        }
        pages.push(page);
    }
    let sizes: Vec<_> = pages.iter().map(Vec::len).collect();
    assert_eq!(sizes, [3, 3, 1]);
    assert_eq!(pages.concat(), stored, "the pages together are the whole list");
}

pub(super) async fn find_filters(handles: Handles) {
    let store = &*handles.here;
    let worker = living(store).await;
    let build = |namespace: &str, name: &str| {
        let template =
            TaskTemplate::builder(name).namespace(namespace).step(StepTemplate::new("only"));
        Arc::new(template.build().unwrap())
    };
    let (a, b, c) = (build("one", "x"), build("one", "y"), build("two", "x"));
    let waiting = queued(store, &a).await;
    let running = owned(store, worker, &b).await;
    let ended = owned(store, worker, &c).await;
    let ends = change(&ended, Vec::new(), end(TaskState::Complete));
    apply(store, &by(worker), TaskChange { degraded: Some(true), ..ends }).await;
    let query = |namespace: Option<&str>, name: Option<&str>, state| TaskQuery {
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
        state,
        ..TaskQuery::default()
    };
    for (asked, expected) in [
        (query(Some("one"), None, None), vec![running.id, waiting]),
        (query(None, Some("x"), None), vec![ended.id, waiting]),
        (query(Some("two"), Some("x"), None), vec![ended.id]),
        (query(Some("two"), Some("y"), None), vec![]),
        (query(None, None, Some(TaskState::Pending)), vec![waiting]),
        (query(None, None, Some(TaskState::InProgress)), vec![running.id]),
        (query(None, None, Some(TaskState::Complete)), vec![ended.id]),
        (query(None, None, Some(TaskState::Error)), vec![]),
        (query(Some("one"), Some("y"), Some(TaskState::InProgress)), vec![running.id]),
        (query(Some("one' OR 1=1 --"), None, None), vec![]),
    ] {
        assert_eq!(found(store, asked.clone()).await, expected, "{asked:?}");
    }
    let line = store.find(query(Some("two"), None, None)).await.unwrap().remove(0);
    let stored = load(store, ended.id).await;
    assert_eq!(line.task_type, "two/x@0.1.0");
    assert_eq!((line.state, line.degraded), (TaskState::Complete, true));
    assert_eq!((line.created_at, line.ended_at), (stored.created_at, stored.ended_at));
}

pub(super) async fn find_knows_what_is_degraded(handles: Handles) {
    let (store, template) = (&*handles.here, template("degraded"));
    let worker = living(store).await;
    let mut stored = Vec::new();
    for nr in 0..12 {
        let task = owned(store, worker, &template).await;
        let states = [None, Some(TaskState::Complete), Some(TaskState::Error)];
        let (state, degraded) = (states[nr % 3], nr % 2 == 0);
        let ends = change(&task, vec![completed(FIRST, 1)], state.map_or(Then::Keep, end));
        let ends = TaskChange { degraded: degraded.then_some(true), ..ends };
        apply(store, &by(worker), ends).await;
        stored.insert(0, (task.id, state.unwrap_or(TaskState::InProgress), degraded));
    }
    for degraded in [true, false] {
        let states = TaskState::ALL.map(Some).into_iter().chain([None]);
        for state in states {
            let fits = |it: &&(TaskId, TaskState, bool)| {
                it.2 == degraded && state.is_none_or(|state| state == it.1)
            };
            let expected: Vec<_> = stored.iter().filter(fits).map(|(id, ..)| *id).collect();
            let query = TaskQuery { state, degraded: Some(degraded), ..TaskQuery::default() };
            assert_eq!(found(&*handles.there, query.clone()).await, expected, "{query:?}");
            let query = TaskQuery { before: expected.first().copied(), ..query };
            let rest = expected.get(1..).unwrap_or_default();
            if !expected.is_empty() {
                assert_eq!(found(store, query.clone()).await, rest, "{query:?}");
            }
        }
        let name = |name: &str| TaskQuery {
            name: Some(name.to_owned()),
            degraded: Some(degraded),
            limit: 4,
            ..TaskQuery::default()
        };
        assert_eq!(found(store, name("degraded")).await.len(), 4);
        assert_eq!(found(store, name("another")).await, []);
    }
}

pub(super) async fn find_knows_every_state(handles: Handles) {
    let (store, template) = (&*handles.here, template("states"));
    let mut stored = Vec::new();
    for state in [TaskState::ALL, TaskState::ALL].concat() {
        let task = load(store, queued(store, &template).await).await;
        apply(store, &operator(), operated(&task, Vec::new(), end(state))).await;
        stored.push((task.id, state));
    }
    for wanted in TaskState::ALL {
        let of_state = stored.iter().rev().filter(|(_, state)| *state == wanted);
        let expected: Vec<_> = of_state.map(|(id, _)| *id).collect();
        let query = TaskQuery { state: Some(wanted), ..TaskQuery::default() };
        assert_eq!(found(&*handles.there, query.clone()).await, expected, "{wanted}");
        let query = TaskQuery { before: expected.first().copied(), ..query };
        assert_eq!(found(store, query).await, expected[1..], "{wanted}, a page on");
    }
}

pub(super) async fn find_limits_its_pages(handles: Handles) {
    let template = template("many");
    let tasks: Vec<_> = (0..1010).map(|_| new_task(&template)).collect();
    let newest = tasks.iter().map(|task| task.id).max();
    handles.here.create(tasks, None).await.unwrap();
    for (limit, expected) in [(0, 100), (1, 1), (1000, 1000), (usize::MAX, 1000)] {
        let page = found(&*handles.here, TaskQuery { limit, ..TaskQuery::default() }).await;
        assert_eq!(page.len(), expected, "limit {limit}");
        assert_eq!(page.first().copied(), newest);
    }
}

pub(super) async fn times_do_not_run_backwards(handles: Handles) {
    let template = template("clock");
    let worker = living(&*handles.here).await;
    let task = owned(&*handles.here, worker, &template).await;
    for seq in 1..=20 {
        let store = if seq % 2 == 0 { &*handles.here } else { &*handles.there };
        let step = if seq % 3 == 0 { THIRD } else { FIRST };
        let rows = vec![completed(step, seq)];
        apply(store, &by(worker), change(&task, rows, Then::Keep)).await;
    }
    let ends = operated(&task, Vec::new(), end(TaskState::Complete));
    apply(&*handles.there, &operator(), ends).await;
    let mut stored = load(&*handles.here, task.id).await;
    stored.rows.sort_by_key(|row| row.transition.seq);
    let mut times = vec![stored.created_at];
    times.extend(stored.rows.iter().map(|row| row.at));
    times.push(stored.ended_at.expect("it has ended"));
    times.push(stored.now);
    assert!(times.is_sorted(), "{times:?}");
}

pub(super) async fn waiting_ends_by_itself(handles: Handles) {
    let worker = living(&*handles.here).await;
    for max in [Duration::ZERO, Duration::from_millis(20)] {
        let wait = handles.here.wait_for_work(worker, max);
        let ended = tokio::time::timeout(Duration::from_secs(20), wait).await;
        assert!(ended.is_ok(), "a wait of {max:?} does not end");
    }
}

pub(super) async fn waiting_ends_when_work_arrives(handles: Handles) {
    let template = template("hint");
    let worker = living(&*handles.here).await;
    for giver in [&handles.here, &handles.there] {
        // What arrives after a claim has looked is hinted, also if nobody waits yet.
        let claimed = super::fixture::claim_of(&*handles.here, worker, &template, 9).await;
        assert!(claimed.tasks.is_empty());
        let given = queued(&**giver, &template).await;
        until("the given task is found", async || {
            // Far longer than the test may take: only a hint ends it. One may come too early.
            handles.here.wait_for_work(worker, Duration::from_secs(600)).await;
            let claimed = super::fixture::claim_of(&*handles.here, worker, &template, 9).await;
            (ids(&claimed.tasks) == [given]).then_some(())
        })
        .await;
    }
}
