//! What tests get from the kit's servers, and how those die and come back.

#![allow(clippy::unwrap_used)]

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tasker_postgres_kit::{Error, Server, Settings};

async fn run(url: &str, sql: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await?;
    connection.close().await
}

async fn text(url: &str, sql: &'static str) -> String {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query(sql).fetch_one(&mut connection).await.unwrap().get(0)
}

#[tokio::test]
async fn the_shared_server_is_one_and_its_databases_are_many() {
    let (a, b) = tokio::join!(Server::shared(), Server::shared());
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(std::ptr::eq(a, b));

    let (one, other) = tokio::join!(a.database(), b.database());
    let (one, other) = (one.unwrap(), other.unwrap());
    run(one.url(), "CREATE TABLE only_here ()").await.unwrap();
    let found = text(other.url(), "SELECT coalesce(to_regclass('only_here')::text, 'none')").await;
    assert_eq!(found, "none");
}

/// Each test has a runtime; the shared server must outlive that of the test that came first.
#[test]
fn the_shared_server_outlives_the_runtime_that_started_it() {
    for _ in 0..2 {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let schema = Server::shared().await.unwrap().schema();
            run(schema.url(), &format!("CREATE SCHEMA {}", schema.name())).await.unwrap();
        });
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_every_crash() {
    let mut server = Server::start(Settings::default()).await.unwrap();
    let url = server.url("postgres");
    run(&url, "CREATE TABLE counted (n int)").await.unwrap();
    for _ in 0..3 {
        // Sessions that are in the middle of something when the postmaster dies.
        let mut busy = PgConnection::connect(&url).await.unwrap();
        busy.execute("BEGIN; INSERT INTO counted VALUES (2)").await.unwrap();
        run(&url, "INSERT INTO counted VALUES (1)").await.unwrap();

        let killed = server.pid().unwrap();
        server.crash().await.unwrap();
        assert_eq!(server.pid(), None);
        assert!(PgConnection::connect(&url).await.is_err());

        server.start_again().await.unwrap();
        assert_ne!(server.pid().unwrap(), killed);
        assert!(busy.execute("COMMIT").await.is_err());
    }
    assert_eq!(text(&url, "SELECT sum(n)::text FROM counted").await, "3");
}

#[tokio::test]
async fn a_server_that_somebody_else_killed_starts_again() {
    let mut server = Server::start(Settings::default()).await.unwrap();
    let url = server.url("postgres");
    kill_process(Pid::from_raw(server.pid().unwrap()).unwrap(), Signal::KILL).unwrap();
    server.crash().await.unwrap();
    server.start_again().await.unwrap();
    server.start_again().await.unwrap();
    server.stop().await.unwrap();
    server.stop().await.unwrap();
    assert!(PgConnection::connect(&url).await.is_err());
    server.start_again().await.unwrap();
    assert_eq!(text(&url, "SELECT 'here'").await, "here");
}

#[tokio::test]
async fn settings_reach_the_server() {
    let parameters = vec!["work_mem=5MB".to_owned()];
    let durable = Settings { durable: true, max_connections: 17, parameters, within: None };
    let (durable, quick) = tokio::join!(Server::start(durable), Server::start(Settings::default()));
    let (durable, quick) = (durable.unwrap(), quick.unwrap());
    const SHOWN: &str = "SELECT concat_ws(' ', current_setting('fsync'), \
        current_setting('synchronous_commit'), current_setting('max_connections'), \
        current_setting('work_mem'))";
    assert_eq!(text(&durable.url("postgres"), SHOWN).await, "on on 17 5MB");
    assert_eq!(text(&quick.url("postgres"), SHOWN).await, "off on 300 4MB");
}

#[tokio::test]
async fn guards_clear_up_behind_them_where_the_server_is_not_ours() {
    let server = Server::start(Settings::default()).await.unwrap();
    let url = server.url("postgres");
    let mut lent = Server::at(&url).unwrap();
    assert!(matches!(lent.crash().await, Err(Error::NotOurs { .. })));

    let (database, schema) = (lent.database().await.unwrap(), lent.schema());
    run(&url, &format!("CREATE SCHEMA {0}; CREATE TABLE {0}.t ()", schema.name())).await.unwrap();
    const LEFT: &str = "SELECT ((SELECT count(*) FROM pg_database WHERE datname LIKE 'tasker%') \
        + (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tasker%'))::text";
    assert_eq!(text(&url, LEFT).await, "2");
    // Still connected, as a pool is when a test ends.
    let _pool = PgConnection::connect(database.url()).await.unwrap();
    drop((database, schema));
    assert_eq!(text(&url, LEFT).await, "0");
}
