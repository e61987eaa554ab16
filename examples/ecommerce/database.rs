//! The shop's own data: durable, shared by several processes, and never Tasker's.
//!
//! With SQLite it is a file of its own beside Tasker's; with PostgreSQL a schema of its own, `shop`,
//! in the same database, so that workers on several machines sell from one stock.

use std::path::Path;
use std::time::Duration;

use sqlx::any::{Any, AnyArguments, AnyPoolOptions};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AnyPool, AssertSqlSafe, ConnectOptions, SqlitePool, Transaction};
use tokio::task::JoinError;

/// The shop's own tables; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pool: AnyPool,
    dialect: &'static Dialect,
}

/// What the two databases write differently.
#[derive(Debug)]
struct Dialect {
    /// Before the name of a table, for `{shop}`.
    shop: &'static str,
    /// A number that the database gives, for `{identity}`.
    identity: &'static str,
    /// After the columns of a table, for `{strict}`.
    strict: &'static str,
    /// Begins a transaction that may write after it has read.
    begin: &'static str,
}

static SQLITE: Dialect = Dialect {
    shop: "",
    identity: "INTEGER PRIMARY KEY AUTOINCREMENT",
    strict: " STRICT",
    // One that began by reading could not wait for another one's writes.
    begin: "BEGIN IMMEDIATE",
};

static POSTGRES: Dialect = Dialect {
    shop: "shop.",
    identity: "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    strict: "",
    begin: "BEGIN",
};

/// Processes that start together make the schema one after the other. `IF NOT EXISTS` would ask for
/// the right to make one even if it is there.
const SCHEMA: &str = "SET LOCAL client_min_messages = warning;
SELECT pg_advisory_xact_lock(hashtextextended('shop', 0));
DO $$ BEGIN IF to_regnamespace('shop') IS NULL THEN CREATE SCHEMA shop; END IF; END $$;";

impl Database {
    /// Tables in a file, which is made if need be.
    pub(crate) async fn in_file(file: &Path, tables: &[&'static str]) -> Result<Self, sqlx::Error> {
        sqlx::any::install_default_drivers();
        // As it stands in the URL of a file.
        let file = std::path::absolute(file)?.to_string_lossy().replace('%', "%25");
        let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
        let pool = AnyPoolOptions::new()
            .max_connections(4)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // What was answered must outlive a power cut.
                    let durable = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL";
                    sqlx::raw_sql(durable).execute(connection).await?;
                    Ok(())
                })
            })
            .connect(options.to_url_lossy().as_str())
            .await?;
        let database = Self { pool, dialect: &SQLITE };
        database.make(&database.dialect.write(&tables.concat())).await?;
        Ok(database)
    }

    /// Tables in the schema `shop` of a PostgreSQL database, which is made if need be.
    pub(crate) async fn on_postgres(
        url: &str,
        tables: &[&'static str],
    ) -> Result<Self, sqlx::Error> {
        sqlx::any::install_default_drivers();
        let pool = AnyPoolOptions::new().max_connections(8).connect(url).await?;
        let database = Self { pool, dialect: &POSTGRES };
        // A user who may make no schema can still work in one that is there.
        let found = "SELECT to_regclass('shop.stock') IS NOT NULL";
        if !sqlx::query_scalar(found).fetch_one(&database.pool).await? {
            // Sent as one, they are one transaction.
            let tables = database.dialect.write(&tables.concat());
            database.make(&format!("{SCHEMA}{tables}")).await?;
        }
        Ok(database)
    }

    /// A statement on the shop's tables, each named as `{shop}table`.
    pub(crate) fn query(&self, statement: &str) -> Query<'static, Any, AnyArguments> {
        sqlx::query(AssertSqlSafe(self.dialect.write(statement)))
    }

    /// The connections to it.
    pub(crate) fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// A transaction; to be run [undisturbed].
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.pool.begin_with(self.dialect.begin).await
    }

    async fn make(&self, tables: &str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(tables)).execute(&self.pool).await?;
        Ok(())
    }
}

impl Dialect {
    fn write(&self, statement: &str) -> String {
        statement
            .replace("{shop}", self.shop)
            .replace("{identity}", self.identity)
            .replace("{strict}", self.strict)
    }
}

/// Opens a file that is nobody's but SQLite's, makes it if need be, and brings tables into being.
pub(crate) async fn open_file(
    file: &Path,
    tables: &[&'static str],
) -> Result<SqlitePool, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // What was answered must outlive a power cut.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5));
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
    for table in tables {
        sqlx::raw_sql(*table).execute(&pool).await?;
    }
    Ok(pool)
}

/// Runs a piece of work to its end even if nobody waits for it any more.
///
/// A step that times out is dropped where it stands. A connection that is dropped in the middle of
/// `BEGIN` would go back to its pool inside a transaction.
pub(crate) async fn undisturbed<T, F>(work: F) -> Result<T, JoinError>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    tokio::spawn(work).await
}

/// What an empty database goes with.
#[cfg(test)]
pub(crate) enum Kept {
    Folder { _folder: tempfile::TempDir },
    Server { _database: tasker_postgres_kit::Database },
}

/// Empty tables on each of the two databases; gone when their [`Kept`] is.
#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test cannot go on without")]
pub(crate) async fn empty(tables: &[&'static str]) -> Vec<(Database, Kept)> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = Database::in_file(&folder.path().join("shop.db"), tables).await.expect("a file");
    let server = tasker_postgres_kit::Server::shared().await.expect("a server");
    let database = server.database().await.expect("a database");
    let schema = Database::on_postgres(database.url(), tables).await.expect("a schema");
    vec![(file, Kept::Folder { _folder: folder }), (schema, Kept::Server { _database: database })]
}
