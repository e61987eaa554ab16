//! Several stores on one file, callers that stop waiting, and processes that are killed.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::collections::HashSet;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fixture::{claim, commit, completed, end, living_worker, request, settle, task, template};
use tasker_core::store::{Applied, Created, StateStore, StoreError, TaskQuery};
use tasker_core::{TaskId, TaskState};
use tasker_sqlite::SqliteStore;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_callers_never_get_the_same_task() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let template = template();
    let first = SqliteStore::open(&path).await.unwrap();
    let tasks: Vec<_> = (0..300).map(|_| task(&template)).collect();
    let ids: HashSet<TaskId> = tasks.iter().map(|task| task.id).collect();
    first.create(tasks, None).await.unwrap();

    let mut racing = JoinSet::new();
    for _ in 0..4 {
        let (path, template) = (path.clone(), Arc::clone(&template));
        racing.spawn(async move {
            let store = SqliteStore::open(&path).await.unwrap();
            let worker = living_worker(&store).await;
            let mut mine = Vec::new();
            loop {
                let work = claim(&store, request(worker, &template, 7)).await;
                if work.tasks.is_empty() {
                    return mine;
                }
                let settled = work.tasks.iter().map(|t| settle(t.id, t.version, completed(0, 1)));
                let applied = commit(&store, worker, settled.collect()).await;
                assert!(applied.iter().all(|applied| *applied == Applied::Yes));
                let ended = work.tasks.iter().map(|task| end(task.id, task.version)).collect();
                let applied = commit(&store, worker, ended).await;
                assert!(applied.iter().all(|applied| *applied == Applied::Yes));
                mine.extend(work.tasks.iter().map(|task| task.id));
            }
        });
    }
    let claimed: Vec<TaskId> = racing.join_all().await.concat();
    assert_eq!(claimed.len(), ids.len());
    assert_eq!(claimed.into_iter().collect::<HashSet<_>>(), ids);
    for id in ids {
        let task = first.load(id).await.unwrap().unwrap();
        assert_eq!((task.state, task.version), (TaskState::Complete, 2));
        assert_eq!(task.rows.len(), 1);
    }
}

/// Polls a future a few times and drops it.
async fn poll_and_drop(future: impl Future, polls: usize) {
    let mut future = pin!(future);
    for _ in 0..polls {
        let once = std::future::poll_fn(|context| {
            let ready = future.as_mut().poll(context).is_ready();
            Poll::Ready(ready)
        });
        if once.await {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_call_happens_wholly_or_not_at_all_and_blocks_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let other = SqliteStore::open(&path).await.unwrap();
    let template = template();
    let worker = living_worker(&store).await;
    for round in 0..1_000 {
        let tasks = vec![task(&template), task(&template)];
        let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
        poll_and_drop(store.create(tasks, None), round % 17).await;
        let mut claiming = request(worker, &template, 5);
        claiming.holding = Some(Vec::new());
        poll_and_drop(store.claim(claiming), round % 13).await;
        poll_and_drop(store.load(ids[0]), round % 11).await;
        if round % 50 == 0 {
            // Answered after the dropped call has happened or not, so that both loads see the same.
            store.create(vec![task(&template)], None).await.unwrap();
            let first = store.load(ids[0]).await.unwrap().is_some();
            assert_eq!(first, store.load(ids[1]).await.unwrap().is_some());
            other.create(vec![task(&template)], None).await.unwrap();
        }
    }
    // What lost answers handed out is handed out again.
    let mut claiming = request(worker, &template, usize::MAX >> 1);
    claiming.holding = Some(Vec::new());
    let work = claim(&store, claiming).await;
    let found = store.find(TaskQuery { limit: 1_000, ..TaskQuery::default() }).await.unwrap();
    assert_eq!(work.tasks.len().min(1_000), found.len());
}

#[tokio::test]
async fn one_bad_operation_does_not_hurt_those_that_arrive_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("tasks.db")).await.unwrap();
    let template = template();
    let known = task(&template);
    store.create(vec![known.clone()], None).await.unwrap();
    let good = task(&template);
    let (bad, created) =
        tokio::join!(store.create(vec![known], None), store.create(vec![good.clone()], None),);
    assert!(matches!(bad, Err(StoreError::Damaged { .. })));
    assert!(matches!(created.unwrap()[..], [Created::New { .. }]));
    assert!(store.load(good.id).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_wakes_whoever_waits_for_work() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let waiting = SqliteStore::open(&path).await.unwrap();
    let writing = SqliteStore::open(&path).await.unwrap();
    let template = template();
    let worker = living_worker(&waiting).await;
    for store in [&writing, &waiting] {
        assert!(claim(&waiting, request(worker, &template, 9)).await.tasks.is_empty());
        // Far longer than the test may take: only a hint ends it.
        let wait = waiting.wait_for_work(worker, Duration::from_secs(3600));
        let (created, ()) = tokio::join!(store.create(vec![task(&template)], None), wait);
        created.unwrap();
        while claim(&waiting, request(worker, &template, 9)).await.tasks.is_empty() {
            waiting.wait_for_work(worker, Duration::from_secs(3600)).await;
        }
    }
}

const WRITER: &str = "TASKER_SQLITE_TEST_WRITES_TO";

/// What the process that is killed does: it creates tasks and prints their ids once acknowledged.
#[tokio::test]
async fn process_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(WRITER) else { return };
    let store = SqliteStore::open(path).await.unwrap();
    let template = template();
    loop {
        let tasks = vec![task(&template), task(&template)];
        let ids = [tasks[0].id, tasks[1].id];
        store.create(tasks, None).await.unwrap();
        println!("\ncreated {} {}", ids[0], ids[1]);
    }
}

#[tokio::test]
async fn what_a_killed_process_was_told_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    for round in 0..3 {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process_that_writes_until_it_is_killed", "--nocapture"])
            .env(WRITER, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut acknowledged: Vec<TaskId> = Vec::new();
        for line in lines.map_while(Result::ok) {
            if let Some(ids) = line.strip_prefix("created ") {
                acknowledged.extend(ids.split(' ').filter_map(|id| id.parse::<TaskId>().ok()));
            }
            if acknowledged.len() >= 60 + 14 * round {
                process.kill().unwrap();
            }
        }
        process.wait().unwrap();

        let store = SqliteStore::open(&path).await.unwrap();
        for id in &acknowledged {
            assert!(store.load(*id).await.unwrap().is_some(), "{id} was acknowledged and is lost");
        }
        let all = store.find(TaskQuery { limit: 1_000, ..TaskQuery::default() }).await.unwrap();
        assert_eq!(all.len() % 2, 0, "a call was torn apart");
        store.close().await;
    }
}
