//! What operators do, raced on the store in memory.
#![cfg(feature = "testing")]

use tasker_core::MemoryStore;
use tasker_core::testing::conformance::Handles;

async fn fresh() -> Handles {
    let store = MemoryStore::new();
    Handles::new(store.clone(), store)
}

tasker_core::operator_races!(fresh);
