//! A real PostgreSQL for tests and benches: [`Server`] finds or starts one, [`Proxy`] breaks the
//! connections to it on purpose.
//!
//! A crate uses it as a development dependency:
//!
//! ```toml
//! [dev-dependencies]
//! tasker-postgres-kit.workspace = true
//! ```
//!
//! Most tests take the server that their process shares, and a schema or a database of their own
//! from it. They need `DATABASE_URL` or local PostgreSQL binaries; without either the error says
//! what to install. Nothing is skipped.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tasker_postgres_kit::Error> {
//! use tasker_postgres_kit::Server;
//!
//! let schema = Server::shared().await?.schema();
//! // PostgresStore::connect(schema.url()) in the schema `schema.name()`
//! assert!(schema.url().starts_with("postgres"));
//! # Ok(())
//! # }
//! ```
//!
//! A test that kills the server starts its own with [`Server::start`]; so does a benchmark, with
//! [`Settings::durable`]. A test of lost replies puts a [`Proxy`] between store and server.
//!
//! A server that the kit started ends with the process that started it, however that process ends.
//! For one to play with: `cargo run -p tasker-postgres-kit`.

mod account;
mod binaries;
mod cluster;
mod database;
mod error;
mod guardian;
mod proxy;
mod server;
mod url;

pub use database::{Database, Schema};
pub use error::Error;
pub use proxy::{Proxy, Swallow};
pub use server::{Server, Settings};
