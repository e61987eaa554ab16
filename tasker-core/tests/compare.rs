//! The comparison of stores compares: alike are alike, and a difference is found.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use tasker_core::MemoryStore;
use tasker_core::store::{Heartbeat, StateStore};
use tasker_core::testing::compare::{Difference, compare};
use tasker_core::testing::conformance::Handles;

#[tokio::test(start_paused = true)]
async fn a_store_answers_as_itself() {
    for seed in 0..200 {
        let store = MemoryStore::new();
        let handles = Handles::new(store.clone(), store);
        compare(&MemoryStore::new(), &handles, seed, 60).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_knows_of_somebody_else_is_told_apart() {
    let store = MemoryStore::new();
    let (name, lease) = ("another".to_owned(), Some(Duration::from_secs(3600)));
    let worker = tasker_core::WorkerId::new();
    let beat = Heartbeat { worker, name, lease, spare: 1, running: Vec::new() };
    store.renew(beat).await.unwrap();
    let handles = Handles::new(store.clone(), store);
    let difference = compare(&MemoryStore::new(), &handles, 1, 1000).await;
    assert!(matches!(difference, Err(Difference::Answers { .. })));
}
