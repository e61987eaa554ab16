//! The PostgreSQL store of Tasker: any number of workers on any number of machines share one
//! database, and a dead one loses nothing.
//!
//! ```no_run
//! # async fn open() -> Result<(), tasker_postgres::OpenError> {
//! use tasker_postgres::PostgresStore;
//!
//! let store = PostgresStore::open("postgres://app@db.example/app").await?;
//! # Ok(())
//! # }
//! ```
//!
//! It needs PostgreSQL 15 or later, no extension and no superuser. Its tables live in a schema of
//! their own, `tasker` unless you [say otherwise](PostgresOptions::schema).

mod claim;
mod commit;
mod create;
mod database;
mod documents;
mod fault;
mod hint;
mod lease;
mod open;
mod options;
#[cfg(test)]
mod plans;
mod read;
mod retention;
mod rows;
mod sql_error;
mod statements;
mod store;
mod submit;
mod templates;
mod transactional;

pub use self::open::OpenError;
pub use self::options::PostgresOptions;
pub use self::sql_error::sql_error;
pub use self::store::PostgresStore;
pub use self::transactional::TransactionalStep;
