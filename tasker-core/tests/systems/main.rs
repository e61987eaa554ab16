//! Systems that steps depend on: how workers leave one alone that is down, and come back to it.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod bank;
mod blocked;
mod branches;
mod crews;
mod fairness;
mod operators;
mod outage;
mod parts;
mod siblings;
mod strangers;
mod trouble;
mod turns;
