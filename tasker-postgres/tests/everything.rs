//! Everything at once, by way of two stores on one schema.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use tasker_core::StateStore;
use tasker_core::testing::storm::{self, Ground};
use tasker_postgres::PostgresStore;
use tasker_postgres_kit::Server;

/// Tasks that ended so long ago may go.
const KEPT: Duration = Duration::from_millis(500);

async fn ground() -> Ground {
    let schema = Server::shared().await.unwrap().schema();
    let options = PostgresStore::options(schema.url()).schema(schema.name());
    let here = Arc::new(options.clone().open().await.unwrap());
    let there = Arc::new(options.open().await.unwrap());
    let stores: Vec<Arc<dyn StateStore>> = vec![here.clone(), there];
    let sweep = move || {
        let store = here.clone();
        async move { store.delete_ended(KEPT, 10).await }
    };
    Ground::new(stores, schema).sweeping(sweep)
}

#[test]
fn everything_comes_to_its_end_after_a_storm() {
    storm::real(2, ground);
}
