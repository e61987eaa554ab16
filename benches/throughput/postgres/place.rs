//! The server that is measured, and a schema in it for each run.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tasker::postgres::PostgresStore;
use tasker_postgres_kit::{Schema, Server, Settings};

use super::cpu::ServerProcesses;
use super::meter::Meter;
use crate::Failed;
use crate::args::Args;
use crate::system::Places;

/// A server: somebody's, or one that was started for this program.
pub(crate) struct Place {
    server: Server,
    pub(crate) url: String,
}

impl Place {
    /// Finds the server or starts one, with the defaults of PostgreSQL where they matter: what is
    /// committed is on the disk.
    pub(crate) async fn find(args: &Args) -> Result<Self, Failed> {
        if let Some(url) = &args.postgres.url {
            return Ok(Self { server: Server::at(url)?, url: url.clone() });
        }
        let mut parameters = vec!["shared_preload_libraries=pg_stat_statements".to_owned()];
        parameters.extend_from_slice(&args.postgres.setting);
        let within = Some(args.dir.clone());
        let settings = Settings { durable: true, parameters, within, ..Settings::default() };
        let server = Server::start(settings).await?;
        let url = server.url("postgres");
        connect(&url).await?.execute("CREATE EXTENSION pg_stat_statements").await?;
        Ok(Self { server, url })
    }

    /// A new store, in a schema of its own.
    pub(crate) async fn store(&self, connections: u32) -> Result<Home, Failed> {
        let schema = self.server.schema();
        let store = open(&self.url, schema.name(), connections).await?;
        Ok(Home { store: Arc::new(store), schema, url: self.url.clone() })
    }

    /// A name for a schema, and its guard.
    pub(crate) fn schema(&self) -> Schema {
        self.server.schema()
    }

    /// Starts to count what the server does in a schema.
    pub(crate) async fn meter(&self, schema: &str) -> Result<Meter, Failed> {
        let mut connection = connect(&self.url).await?;
        let postmaster = self.server.pid().and_then(|pid| u32::try_from(pid).ok());
        let processes = ServerProcesses::find(postmaster, &mut connection).await?;
        Meter::start(connection, processes, schema).await
    }
}

/// A store in its schema. [Close](Self::close) it, or what it leaves keeps the server busy.
pub(crate) struct Home {
    pub(crate) store: Arc<PostgresStore>,
    pub(crate) schema: Schema,
    pub(crate) url: String,
}

impl Home {
    /// Closes the store's connections, so that the server counts what they did.
    pub(crate) async fn close(&self) {
        self.store.close().await;
    }

    /// Drops the schema.
    pub(crate) async fn clear(self) -> Result<(), Failed> {
        self.close().await;
        drop_schema(&self.url, self.schema.name()).await
    }
}

/// A store in a schema that may be there.
pub(crate) async fn open(
    url: &str,
    schema: &str,
    connections: u32,
) -> Result<PostgresStore, Failed> {
    let options = PostgresStore::options(url).schema(schema).connections(connections);
    // What is measured is how long it takes, not whether that is too long.
    Ok(options.deadline(Duration::from_secs(60)).open().await?)
}

pub(crate) async fn connect(url: &str) -> Result<PgConnection, Failed> {
    Ok(PgConnection::connect(url).await?)
}

/// Drops a schema and what is in it.
pub(crate) async fn drop_schema(url: &str, schema: &str) -> Result<(), Failed> {
    let drop = format!("SET client_min_messages = warning; DROP SCHEMA {schema} CASCADE");
    connect(url).await?.execute(sqlx::raw_sql(AssertSqlSafe(drop))).await?;
    Ok(())
}

/// A session that has read something, and goes on seeing the database as it was then.
pub(crate) struct HeldSnapshot {
    _connection: PgConnection,
}

impl HeldSnapshot {
    /// One, if it is asked for.
    pub(crate) async fn wanted(args: &Args, places: &Places) -> Result<Option<Self>, Failed> {
        if !args.postgres.held_snapshot {
            return Ok(None);
        }
        Ok(Some(Self::take(&places.postgres()?.url).await?))
    }

    pub(crate) async fn take(url: &str) -> Result<Self, Failed> {
        let mut connection = connect(url).await?;
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        connection.execute("SELECT count(*) FROM pg_class").await?;
        Ok(Self { _connection: connection })
    }
}
