//! What operators do, raced between two stores on one schema.

#![allow(clippy::unwrap_used)]

use tasker_core::testing::conformance::Handles;
use tasker_postgres::PostgresStore;
use tasker_postgres_kit::Server;

async fn fresh() -> Handles {
    let schema = Server::shared().await.unwrap().schema();
    let options = PostgresStore::options(schema.url()).schema(schema.name());
    let here = options.clone().open().await.unwrap();
    let there = options.open().await.unwrap();
    Handles::new(here, there).keeping(schema)
}

tasker_core::operator_races!(fresh);
