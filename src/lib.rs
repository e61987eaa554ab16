//! Tasker.
pub use tasker_core::*;
