//! What was urgent and what has waited long, from a file whose tasks were queued long ago.

#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::{claim, living_worker, request, task, template};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tasker_core::store::{NewTask, StateStore};
use tasker_core::{Priority, TaskId};
use tasker_sqlite::SqliteStore;

const MINUTE: i64 = 60_000_000;

#[tokio::test]
async fn what_has_waited_longer_than_a_head_start_goes_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let template = template();
    // In the order in which they are to come, with the minutes that they have waited.
    let waiting = [
        (Priority::Normal, 11),
        (Priority::High, 0),
        (Priority::Normal, 9),
        (Priority::Low, 18),
        (Priority::Normal, 1),
        (Priority::Low, 2),
    ];
    let tasks: Vec<_> = waiting.map(|(priority, _)| NewTask { priority, ..task(&template) }).into();
    let expected: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
    store.create(tasks, None).await.unwrap();

    let mut file = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    for (id, (_, minutes)) in expected.iter().zip(waiting) {
        let (id, waited) = (id.as_uuid().simple(), minutes * MINUTE);
        let sql = format!(
            "UPDATE queue SET wake_at = wake_at - {waited} WHERE task = x'{id}';
             UPDATE task SET wake_at = wake_at - {waited} WHERE id = x'{id}'"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut file).await.unwrap();
    }
    file.close().await.unwrap();

    let worker = living_worker(&store).await;
    let mut claimed = Vec::new();
    for wanted in [1, 2, 3] {
        let work = claim(&store, request(worker, &template, wanted)).await;
        claimed.extend(work.tasks.into_iter().map(|task| task.id));
    }
    assert_eq!(claimed, expected);
}
