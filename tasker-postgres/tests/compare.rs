//! The store answers as the store in memory does, whatever is done to both.

#![allow(clippy::unwrap_used)]

use tasker_core::MemoryStore;
use tasker_core::testing::compare::compare;
use tasker_core::testing::conformance::Handles;
use tasker_postgres::PostgresStore;
use tasker_postgres_kit::Server;

async fn compare_many(shared: bool) {
    for seed in 0..15 {
        let schema = Server::shared().await.unwrap().schema();
        let options = PostgresStore::options(schema.url()).schema(schema.name());
        let here = options.clone().open().await.unwrap();
        let there = options.open().await.unwrap();
        let mut handles = Handles::new(here, there).keeping(schema);
        if !shared {
            handles.there = handles.here.clone();
        }
        if let Err(difference) = compare(&MemoryStore::new(), &handles, seed, 80).await {
            panic!("{difference}");
        }
    }
}

#[tokio::test]
async fn alone_on_its_schema_it_answers_as_the_store_in_memory() {
    compare_many(false).await;
}

#[tokio::test]
async fn two_on_one_schema_answer_as_one_store_in_memory() {
    compare_many(true).await;
}
