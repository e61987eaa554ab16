//! What is damaged or of a later version keeps nobody from the rest.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fixture::{claim, commit, living_worker, request, task, template};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tasker_core::store::{
    Applied, Assumption, ClaimRequest, Created, NewOffer, Route, StateStore, StoreError,
    StoredTask, TaskChange, Then,
};
use tasker_core::{StepIndex, StepTemplate, TaskId, TaskTemplate};
use tasker_sqlite::SqliteStore;

async fn run(path: &Path, sql: &str) {
    let mut connection = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn blob(task: TaskId) -> String {
    format!("x'{}'", task.as_uuid().simple())
}

fn other_template() -> Arc<TaskTemplate> {
    let template = TaskTemplate::builder("invoice").namespace("shop");
    Arc::new(template.step(StepTemplate::new("print")).build().unwrap())
}

fn both(worker: tasker_core::WorkerId, tasks: usize) -> ClaimRequest {
    let mut request = request(worker, &template(), tasks);
    request.routes = Arc::new([Route::of(&template()), Route::of(&other_template())].into());
    request
}

fn ids(tasks: &[StoredTask]) -> HashSet<TaskId> {
    tasks.iter().map(|task| task.id).collect()
}

async fn queue(store: &SqliteStore, template: &Arc<TaskTemplate>, count: usize) -> Vec<TaskId> {
    let tasks: Vec<_> = (0..count).map(|_| task(template)).collect();
    let created = store.create(tasks.clone(), None).await.unwrap();
    assert!(created.iter().all(|created| matches!(created, Created::New { .. })));
    tasks.iter().map(|task| task.id).collect()
}

async fn open() -> (tempfile::TempDir, PathBuf, SqliteStore) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let store = SqliteStore::open(&path).await.unwrap();
    (directory, path, store)
}

/// Damages the head of one of two queues, claims all the others, repairs it and claims it.
async fn set_aside(damage: impl Fn(&str) -> String, repair: impl Fn(&str) -> String) {
    let (_directory, path, store) = open().await;
    let bad = queue(&store, &template(), 1).await[0];
    let first = queue(&store, &other_template(), 2).await;
    let damaged = blob(bad);
    run(&path, &damage(&damaged)).await;
    // Templates are cached, because they never change.
    store.close().await;
    let store = SqliteStore::open(&path).await.unwrap();
    let again = "UPDATE task SET wake_at = 0 WHERE owner IS NULL; UPDATE queue SET wake_at = 0";

    for round in 0..2 {
        let more =
            if round == 0 { first.clone() } else { queue(&store, &other_template(), 2).await };
        let alike = if damage("").contains("template") {
            Vec::new()
        } else {
            queue(&store, &template(), 2).await
        };
        let worker = living_worker(&store).await;
        let mut claimed = HashSet::new();
        // One at a time: what is set aside is made up for in the same claim.
        for _ in 0..more.len() + alike.len() {
            let work = claim(&store, both(worker, 1)).await;
            assert_eq!(work.tasks.len(), 1);
            claimed.extend(ids(&work.tasks));
        }
        assert_eq!(claimed, more.into_iter().chain(alike).collect());
        let work = claim(&store, both(worker, 10)).await;
        assert!(work.tasks.is_empty());
        assert!(work.next_in.is_some_and(|wait| !wait.is_zero()), "{:?}", work.next_in);
        let error = store.load(bad).await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        run(&path, again).await;
    }
    run(&path, &repair(&damaged)).await;
    let worker = living_worker(&store).await;
    let work = claim(&store, both(worker, 10)).await;
    assert_eq!(ids(&work.tasks), [bad].into());
    assert_eq!(work.tasks[0].version, 1, "only the last claim moved it");
    assert_eq!(store.load(bad).await.unwrap().unwrap().owner, Some(worker));
}

#[tokio::test]
async fn a_task_with_a_row_of_an_unknown_kind_is_set_aside() {
    set_aside(
        |id| format!("INSERT INTO history VALUES ({id}, -1, 1, 0, 'x', 0, 0, 'later', NULL, NULL)"),
        |id| format!("DELETE FROM history WHERE task = {id} AND seq = 1"),
    )
    .await;
}

#[tokio::test]
async fn a_task_in_an_unknown_state_is_set_aside() {
    set_aside(
        |id| format!("UPDATE task SET state = 'later' WHERE id = {id}"),
        |id| format!("UPDATE task SET state = 'pending' WHERE id = {id} AND state = 'later'"),
    )
    .await;
}

#[tokio::test]
async fn a_task_of_an_unknown_priority_is_set_aside() {
    set_aside(
        |id| format!("UPDATE task SET priority = 7 WHERE id = {id}"),
        |id| format!("UPDATE task SET priority = 0 WHERE id = {id}"),
    )
    .await;
}

#[tokio::test]
async fn a_task_of_an_unknown_template_is_set_aside() {
    set_aside(
        |_| "UPDATE template SET body = '!' || body WHERE name = 'order'".to_owned(),
        |_| "UPDATE template SET body = substr(body, 2) WHERE name = 'order'".to_owned(),
    )
    .await;
}

#[tokio::test]
async fn recovery_and_offers_pass_over_what_cannot_be_read() {
    let (_directory, path, store) = open().await;
    let template = template();
    let queued = queue(&store, &template, 3).await;
    let owner = living_worker(&store).await;
    assert_eq!(claim(&store, request(owner, &template, 3)).await.tasks.len(), 3);
    let route = Route::to_handler(&template, "charge");
    for task in &queued {
        let offer =
            NewOffer { step: StepIndex(1), seq: 1, route: route.clone(), needs: Vec::new() };
        let assumes = Assumption::Owned { version: 1 };
        let (rows, offers, then) = (Vec::new(), vec![offer], Then::Keep);
        let change =
            TaskChange { task: *task, assumes, rows, offers, then, degraded: None, review: false };
        assert_eq!(commit(&store, owner, vec![change]).await, [Applied::Yes]);
    }
    let bad = blob(queued[0]);
    run(&path, &format!("UPDATE task SET state = 'later' WHERE id = {bad}")).await;

    let mut recovering = request(owner, &template, 0);
    recovering.holding = Some(Vec::new());
    let recovered = claim(&store, recovering).await;
    assert_eq!(ids(&recovered.tasks), queued[1..].iter().copied().collect());

    let other = living_worker(&store).await;
    let mut offered = HashSet::new();
    for _ in 1..queued.len() {
        let work = claim(&store, request(other, &template, 1)).await;
        assert_eq!(work.offers.len(), 1);
        offered.insert(work.offers[0].task.id);
    }
    assert_eq!(offered, queued[1..].iter().copied().collect());
    assert!(claim(&store, request(other, &template, 1)).await.offers.is_empty());

    run(&path, &format!("UPDATE task SET state = 'in_progress' WHERE id = {bad}")).await;
    run(&path, "UPDATE offer SET offered_at = 0").await;
    let work = claim(&store, request(other, &template, 1)).await;
    assert_eq!(work.offers[0].task.id, queued[0]);
}
