//! What operators do, raced between two stores on one file.

#![allow(clippy::unwrap_used)]

use tasker_core::testing::conformance::Handles;
use tasker_sqlite::SqliteStore;

async fn fresh() -> Handles {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let here = SqliteStore::open(&path).await.unwrap();
    let there = SqliteStore::open(&path).await.unwrap();
    Handles::new(here, there).keeping(directory)
}

tasker_core::operator_races!(fresh);
