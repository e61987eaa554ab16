//! Templates from outside: what is accepted, what is refused and how it is told.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod build;
mod context;
mod graph;
mod limits;
mod properties;
mod systems;
mod yaml;
