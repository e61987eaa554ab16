//! Everything at once, on the store in memory.
#![cfg(feature = "testing")]

use std::sync::Arc;

use tasker_core::testing::storm::{self, Ground};
use tasker_core::{MemoryStore, StateStore};

async fn ground() -> Ground {
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
    Ground::new(vec![store], ())
}

#[test]
fn everything_comes_to_its_end_after_a_storm() {
    storm::paused(10, ground);
}

#[test]
fn everything_comes_to_its_end_after_a_storm_on_several_threads() {
    storm::real(2, ground);
}
