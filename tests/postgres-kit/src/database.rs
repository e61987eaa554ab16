//! What a test gets of a server for itself: a database or a schema, and a name that is unique.
//!
//! Both are guards. In a server that somebody else runs, dropping one drops what it stands for; in
//! one of our own that would only cost time.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::{Error, url};

/// Where guards live: the URL of a database that is there, and whether to clear up behind them.
#[derive(Clone)]
pub(crate) struct Home {
    pub(crate) url: String,
    pub(crate) must_clear: bool,
}

/// A database that was empty when it was made. Keep it for as long as it is used.
pub struct Database {
    name: String,
    url: String,
    _clearing: Clearing,
}

/// A schema's name, in a database that others share. Keep it for as long as it is used.
pub struct Schema {
    name: String,
    url: String,
    _clearing: Clearing,
}

impl Database {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where to connect to.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Schema {
    pub(crate) fn new(home: Home) -> Self {
        let name = unique_name();
        let url = home.url.clone();
        // Not for ever behind a transaction that is still open.
        let statement = format!("SET lock_timeout = '5s'; DROP SCHEMA IF EXISTS {name} CASCADE");
        Self { name, url, _clearing: Clearing { home, statement } }
    }

    /// Its name: lower case, needs no quotes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where to connect to: the database, not the schema.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

pub(crate) async fn create(home: Home) -> Result<Database, Error> {
    let name = unique_name();
    let url = url::with_database(&home.url, &name)?;
    execute(&home.url, &format!("CREATE DATABASE {name}"))
        .await
        .map_err(Error::sql("create a database"))?;
    // FORCE: a pool may still be about to close its connections.
    let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    Ok(Database { name, url, _clearing: Clearing { home, statement } })
}

/// Unique among everybody who tests on a server at the same time.
pub(crate) fn unique_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("tasker_test_{time:x}_{:x}_{number:x}", std::process::id())
}

/// Executes `statement` when it is dropped.
struct Clearing {
    home: Home,
    statement: String,
}

impl Drop for Clearing {
    fn drop(&mut self) {
        if !self.home.must_clear {
            return;
        }
        let (url, statement) = (&self.home.url, &self.statement);
        // A thread, because a test's runtime does not wait in a drop; and we do wait for it,
        // because the process may be about to end.
        let cleared = thread::scope(|scope| {
            let clear = || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(execute(url, statement)).map_err(Into::into)
            };
            scope.spawn(clear).join()
        });
        let failure: Option<Box<dyn std::error::Error + Send + Sync>> = match cleared {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some("panicked".into()),
        };
        if let Some(error) = failure {
            eprintln!("not cleared up: {}: {error}", self.statement);
        }
    }
}

async fn execute(url: &str, statement: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))).await?;
    connection.close().await
}
