//! Tasker runs business processes as durable tasks.

pub use tasker_core::*;
