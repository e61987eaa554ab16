//! What opening a store does, and what it says when it cannot.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::path::Path;
use std::time::Duration;

use fixture::{task, template};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tasker_core::WorkerId;
use tasker_core::store::{StateStore, StoreError, TaskQuery};
use tasker_sqlite::{OpenError, SqliteOptions, SqliteStore};
use tokio::task::JoinSet;

async fn run(path: &Path, sql: &str) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_stores_may_open_an_empty_file_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let mut opening = JoinSet::new();
    for _ in 0..10 {
        let path = path.clone();
        opening.spawn(async move {
            let store = SqliteStore::open(&path).await.unwrap();
            store.create(vec![task(&template())], None).await.unwrap();
            store.close().await;
        });
    }
    opening.join_all().await;
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.find(TaskQuery::default()).await.unwrap().len(), 10);
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nowhere").join("tasks.db");
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::NoDirectory { .. }), "{error}");
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    let text = "not a database, and longer than the header of one, so that nobody mistakes it: \
                a database begins with another sentence and this file has none of it";
    std::fs::write(&path, text).unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::NotOurs { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_database_of_another_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("theirs.db");
    run(&path, "CREATE TABLE orders (id INTEGER)").await;
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::NotOurs { .. }), "{error}");
}

#[tokio::test]
async fn a_file_of_a_later_version_is_refused_with_both_versions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    SqliteStore::open(&path).await.unwrap().close().await;
    run(&path, "PRAGMA user_version = 99").await;
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 99, known: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_an_error_that_quotes_no_statement() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let store = SqliteStore::open(&path).await.unwrap();
    store.create(vec![task(&template())], None).await.unwrap();
    store.close().await;
    run(&path, "DROP TABLE history").await;

    let store = SqliteStore::open(&path).await.unwrap();
    let error = store.create(vec![task(&template())], None).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    let everything = format!("{error} {error:?}");
    assert!(!everything.contains("history") && !everything.contains("INSERT"), "{everything}");
}

#[tokio::test]
async fn every_call_after_close_is_unavailable() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("tasks.db")).await.unwrap();
    store.close().await;
    store.close().await;
    let created = store.create(vec![task(&template())], None).await;
    assert!(matches!(created, Err(StoreError::Unavailable { .. })));
    let found = store.find(TaskQuery::default()).await;
    assert!(matches!(found, Err(StoreError::Unavailable { .. })));
    store.wait_for_work(WorkerId::new(), Duration::ZERO).await;
}

#[tokio::test]
async fn a_lock_that_outlasts_the_deadline_is_unavailable_and_a_shorter_one_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let options = SqliteOptions::new(&path);
    let patient = options.clone().open().await.unwrap();
    let hasty = options.deadline(Duration::from_millis(50)).open().await.unwrap();

    let mut other = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let error = hasty.create(vec![task(&template())], None).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");

    let template = template();
    let waiting = patient.create(vec![task(&template)], None);
    let release = async {
        // Two more turns of the one that gives up make sure that the other one has waited.
        for _ in 0..2 {
            hasty.create(vec![task(&template)], None).await.unwrap_err();
        }
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    };
    let (created, ()) = tokio::join!(waiting, release);
    created.unwrap();
    hasty.create(vec![task(&template)], None).await.unwrap();
    assert_eq!(patient.find(TaskQuery::default()).await.unwrap().len(), 2);
}
