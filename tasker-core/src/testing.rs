//! Checks for your own tests: of workflows and their handlers, and of a store that you wrote.
//!
//! [`WorkflowTest`] puts a workflow through everything that Tasker may do to it: failures, second
//! deliveries, dying workers. [`FaultyStore`] makes a store fail at will, and [`conformance`]
//! proves that one keeps the contract of [`StateStore`](crate::store::StateStore), as [`races`] does
//! for what operators do and [`storm`] for everything at once. All of it stands
//! behind the feature `testing`, for `dev-dependencies`.

pub mod compare;
pub mod conformance;
mod faulty;
pub mod races;
pub mod storm;
mod workflow;

pub use faulty::{FaultyStore, Loss};
pub use workflow::WorkflowTest;
