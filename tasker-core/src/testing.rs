//! Checks for your own tests: of a store that you wrote, and of workflows and their handlers.
//!
//! [`conformance`] proves that a store keeps the contract of
//! [`StateStore`](crate::store::StateStore). Behind the feature `testing`, which is for
//! `dev-dependencies`.

pub mod compare;
pub mod conformance;
