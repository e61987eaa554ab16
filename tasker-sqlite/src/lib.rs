//! The embedded store of Tasker: one SQLite file, durable, shared by several processes.
//!
//! [`SqliteStore`] is a [`StateStore`](tasker_core::store::StateStore). Everything that it writes
//! goes through one connection, on which what arrives together is committed together; reading has
//! connections of its own. All SQL is in `queries/`.

mod bulk;
mod claim;
mod commit;
mod create;
mod documents;
mod fault;
mod known;
mod lease;
mod open;
mod options;
#[cfg(test)]
mod plans;
mod read;
mod retention;
mod rows;
mod session;
mod store;
mod templates;
mod watch;
mod writer;

pub use open::OpenError;
pub use options::{SqliteOptions, Synchronous};
pub use store::SqliteStore;
