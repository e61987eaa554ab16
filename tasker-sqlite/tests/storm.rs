//! Everything at once, by way of two stores on one file.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use tasker_core::StateStore;
use tasker_core::testing::storm::{self, Ground};
use tasker_sqlite::SqliteStore;

/// Tasks that ended so long ago may go.
const KEPT: Duration = Duration::from_millis(500);

async fn ground() -> Ground {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let here = Arc::new(SqliteStore::open(&path).await.unwrap());
    let there = Arc::new(SqliteStore::open(&path).await.unwrap());
    let stores: Vec<Arc<dyn StateStore>> = vec![here.clone(), there];
    let sweep = move || {
        let store = here.clone();
        async move { store.delete_ended(KEPT, 10).await }
    };
    Ground::new(stores, directory).sweeping(sweep)
}

#[test]
fn everything_comes_to_its_end_after_a_storm() {
    storm::real(2, ground);
}
