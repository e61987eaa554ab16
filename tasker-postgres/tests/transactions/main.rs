//! Tasks that are submitted, and steps that are recorded, in a transaction with something else.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bank;
mod kills;
mod steps;
mod submit;
