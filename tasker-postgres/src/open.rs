//! Opening a database: connections, the schema, and what can be wrong.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};

use crate::PostgresOptions;
use crate::fault::{Fault, meaning};
use crate::statements::quoted;

/// All versions of the schema, in their order.
static MIGRATIONS: Migrator = sqlx::migrate!();

/// The table that says which of them were applied.
const APPLIED: &str = "migration";

/// The oldest server whose dialect the statements keep to.
const OLDEST_SERVER: i32 = 150_000;

/// Names that are made of the schema's have up to 63 bytes.
const LONGEST_SCHEMA: usize = 50;

/// How long a migration waits for a lock: longer, and it would hold up who wants the next one.
const LOCK_TIMEOUT: &str = "5s";

/// How often a migration that could not have its locks is tried again.
const ATTEMPTS: u32 = 12;

/// What the plans of the statements rely on. Each is planned once for all parameters, often while
/// the tables are empty, where the planner would find reading a whole table the best it can do; and
/// the plan stays when they have grown. All statements can do without.
pub(crate) const SETTINGS: &str =
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off";

/// A connection that was idle for longer is asked whether it still stands.
const FRESH: Duration = Duration::from_secs(1);

/// Why a store could not be opened, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be read.
    #[error(
        "the URL of the database is not of the form postgres://user:password@host:port/database, \
         where `/`, `#`, `%` and the like in a password are written as %2F, %23, %25"
    )]
    Url,
    /// The name of the schema is empty, or too long.
    #[error("`{schema}` cannot name the schema: give it a name of 1 to 50 bytes")]
    Schema {
        /// The name.
        schema: String,
    },
    /// The server is older than 15.
    #[error("the server runs PostgreSQL {found}; Tasker needs PostgreSQL 15 or later")]
    OldServer {
        /// Its version.
        found: String,
    },
    /// The tables are missing or of an earlier version, and may not be changed.
    #[error(
        "schema `{schema}` does not have the tables of this version of Tasker; let a user who may \
         make them run the migration first"
    )]
    NotMigrated {
        /// The schema.
        schema: String,
    },
    /// The user may neither use the schema nor make it.
    #[error(
        "this user may not make schema `{schema}` or use its tables; let its owner run the \
         migration, and grant USAGE on the schema and SELECT, INSERT, UPDATE and DELETE on its \
         tables"
    )]
    NotAllowed {
        /// The schema.
        schema: String,
    },
    /// The tables were made by a later version of Tasker.
    #[error(
        "schema `{schema}` was migrated to version {found} by a later version of Tasker; run a \
         later version of the program"
    )]
    Newer {
        /// The schema.
        schema: String,
        /// The version of its tables.
        found: i64,
    },
    /// The database cannot be reached or used for another reason.
    #[error("the database cannot be opened: {reason}")]
    Failed {
        /// What is wrong, without statements or secrets.
        reason: String,
    },
}

/// How to connect; nothing of it is a setting that a pooler might not know.
pub(crate) fn connecting(url: &str) -> Result<PgConnectOptions, OpenError> {
    let options = PgConnectOptions::from_str(url).map_err(|_| OpenError::Url)?;
    Ok(options.application_name("tasker").statement_cache_capacity(256).disable_statement_logging())
}

/// The connections that all operations share.
pub(crate) fn pool(options: &PostgresOptions) -> Result<PgPool, OpenError> {
    // A lock that is not had before the deadline must not be waited for after it: the server would
    // not notice that nobody wants it any more, and keep a session for each such call.
    let patience = (options.deadline.as_millis() * 3 / 8).clamp(1, i32::MAX as u128);
    let settings = if options.pooled {
        String::new()
    } else {
        format!("{SETTINGS}; SET lock_timeout = {patience}")
    };
    let settings: Arc<str> = settings.into();
    let pool =
        checked(options.connections, options.deadline).after_connect(move |connection, _| {
            let settings = AssertSqlSafe(Arc::clone(&settings));
            Box::pin(async move {
                sqlx::raw_sql(settings).execute(connection).await?;
                Ok(())
            })
        });
    Ok(pool.connect_lazy_with(connecting(&options.url)?))
}

/// The connections whose transactions steps work in; their settings are as the database has them.
pub(crate) fn lending(options: &PostgresOptions) -> Result<PgPool, OpenError> {
    let pool = checked(options.transactional_steps, options.deadline);
    Ok(pool.connect_lazy_with(connecting(&options.url)?))
}

/// Connections that are asked whether they still stand.
fn checked(connections: u32, deadline: Duration) -> PgPoolOptions {
    pooling(connections, deadline).before_acquire(|connection, meta| {
        Box::pin(async move {
            // Every connection is broken after the server was away; one is not asked all the
            // time, which would cost a round trip for each operation.
            if meta.idle_for > FRESH {
                connection.ping().await?;
            }
            Ok(true)
        })
    })
}

/// Makes pools for the one connection that listens.
pub(crate) fn listening(
    options: &PostgresOptions,
) -> Result<impl Fn() -> PgPool + use<>, OpenError> {
    let url = options.listen_url.as_deref().unwrap_or(&options.url);
    let pool = pooling(1, options.deadline).max_lifetime(None).idle_timeout(None);
    let connect = connecting(url)?.statement_cache_capacity(1);
    Ok(move || pool.clone().connect_lazy_with(connect.clone()))
}

fn pooling(connections: u32, deadline: Duration) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(deadline / 2)
        .test_before_acquire(false)
}

/// Checks the server and its tables, and makes or updates them if that is needed and asked for.
pub(crate) async fn prepare(options: &PostgresOptions) -> Result<(), OpenError> {
    let mut connection = connect(options).await?;
    let prepared = prepare_on(&mut connection, options).await;
    _ = connection.close().await;
    prepared
}

async fn prepare_on(
    connection: &mut PgConnection,
    options: &PostgresOptions,
) -> Result<(), OpenError> {
    match applied(connection, options).await? {
        Found::Current => Ok(()),
        Found::Behind if options.migrate => migrate_on(connection, options).await,
        Found::Behind => Err(OpenError::NotMigrated { schema: options.schema.clone() }),
    }
}

/// Makes or updates the tables.
pub(crate) async fn migrate(options: &PostgresOptions) -> Result<(), OpenError> {
    let mut connection = connect(options).await?;
    let migrated = match applied(&mut connection, options).await {
        Ok(Found::Behind) => migrate_on(&mut connection, options).await,
        Ok(Found::Current) => Ok(()),
        Err(error) => Err(error),
    };
    _ = connection.close().await;
    migrated
}

async fn connect(options: &PostgresOptions) -> Result<PgConnection, OpenError> {
    let schema = &options.schema;
    if schema.is_empty() || schema.len() > LONGEST_SCHEMA || schema.contains('\0') {
        return Err(OpenError::Schema { schema: schema.clone() });
    }
    let connect = connecting(&options.url)?;
    let connected = tokio::time::timeout(options.deadline, connect.connect()).await;
    let mut connection = match connected {
        Ok(connection) => connection.map_err(|error| explain(options, error))?,
        Err(_) => {
            let reason = "it does not answer; is it running, and is the address right?".to_owned();
            return Err(OpenError::Failed { reason });
        }
    };
    let version = sqlx::query(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version')",
    );
    let row = version.fetch_one(&mut connection).await.map_err(|error| explain(options, error))?;
    if row.get::<i32, _>(0) < OLDEST_SERVER {
        return Err(OpenError::OldServer { found: row.get(1) });
    }
    Ok(connection)
}

/// What the tables are.
enum Found {
    Current,
    Behind,
}

async fn applied(
    connection: &mut PgConnection,
    options: &PostgresOptions,
) -> Result<Found, OpenError> {
    let latest = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
    let table = format!("{}.{APPLIED}", quoted(&options.schema));
    let exists = sqlx::query("SELECT to_regclass($1) IS NOT NULL").bind(&table);
    let exists = exists.fetch_one(&mut *connection).await;
    if !exists.map_err(|error| explain(options, error))?.get::<bool, _>(0) {
        return Ok(Found::Behind);
    }
    let newest = format!("SELECT coalesce(max(version), 0) FROM {table} WHERE success");
    let newest = sqlx::query(AssertSqlSafe(newest)).fetch_one(connection).await;
    let found: i64 = newest.map_err(|error| explain(options, error))?.get(0);
    match found {
        found if found > latest => Err(OpenError::Newer { schema: options.schema.clone(), found }),
        found if found == latest => Ok(Found::Current),
        _ => Ok(Found::Behind),
    }
}

/// Migrates, one process at a time, in transactions that wait for locks only for so long.
async fn migrate_on(
    connection: &mut PgConnection,
    options: &PostgresOptions,
) -> Result<(), OpenError> {
    let mut attempt = 1;
    loop {
        match try_migrate(connection, options).await {
            Ok(()) => return Ok(()),
            Err(error) if is_locked(&error) && attempt < ATTEMPTS => attempt += 1,
            Err(MigrateError::VersionMissing(found)) => {
                return Err(OpenError::Newer { schema: options.schema.clone(), found });
            }
            Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                return Err(explain(options, error));
            }
            Err(_) => {
                let reason = format!(
                    "the tables of schema `{}` cannot be migrated: they differ \
                     from those that this version made",
                    options.schema
                );
                return Err(OpenError::Failed { reason });
            }
        }
    }
}

async fn try_migrate(
    connection: &mut PgConnection,
    options: &PostgresOptions,
) -> Result<(), MigrateError> {
    let schema = quoted(&options.schema);
    let session = format!(
        "SET lock_timeout = '{LOCK_TIMEOUT}'; SET search_path = {schema}; \
         SET client_min_messages = warning"
    );
    sqlx::raw_sql(AssertSqlSafe(session)).execute(&mut *connection).await?;
    // Two that make the same schema at once would collide.
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(format!("tasker.{}", options.schema))
        .execute(&mut *transaction)
        .await?;
    let exists = sqlx::query("SELECT to_regnamespace($1) IS NOT NULL").bind(&schema);
    if !exists.fetch_one(&mut *transaction).await?.get::<bool, _>(0) {
        let create = format!("CREATE SCHEMA {schema}");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    let mut migrations = Migrator::with_migrations(MIGRATIONS.iter().cloned().collect());
    migrations.dangerous_set_table_name(format!("{schema}.{APPLIED}"));
    // Not `run`, whose future the compiler does not take for `Send`: no store could be opened in a
    // spawned task.
    migrations.run_direct(None, connection, false).await
}

fn is_locked(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some("55P03"))
}

fn explain(options: &PostgresOptions, error: sqlx::Error) -> OpenError {
    let of_tls = match &error {
        sqlx::Error::Tls(_) => true,
        // What is wrong with a certificate comes as this.
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
        _ => false,
    };
    let code = Fault::from(error);
    let reason = match code.code().as_deref() {
        Some("42501") => return OpenError::NotAllowed { schema: options.schema.clone() },
        // A relation, a schema, a type or a function of that name.
        Some("42P07" | "42P06" | "42710" | "42723") => format!(
            "schema `{}` has something in it that is named like a table of Tasker's and is none; \
             choose another schema",
            options.schema
        ),
        Some(code) => format!("PostgreSQL reported {} (SQLSTATE {code})", meaning(code).0),
        None if of_tls => "the server offers no TLS, or has a certificate that is not accepted; \
                           `sslmode` in the URL says what is asked for"
            .to_owned(),
        None => "no connection can be made; is it running, and is the address right?".to_owned(),
    };
    OpenError::Failed { reason }
}
