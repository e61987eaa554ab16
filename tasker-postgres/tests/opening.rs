//! Many that open a database at once, openings that are cut off, and users with few rights.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::sync::Arc;

use fixture::process::{self, Process};
use fixture::{claim, commit, connect, end, living_worker, number, open, options_at, request};
use fixture::{schema, task, template};
use serde_json::json;
use sqlx::AssertSqlSafe;
use tasker_core::store::{Applied, StateStore, StoreError};
use tasker_postgres::{OpenError, PostgresStore};
use tasker_postgres_kit::{Proxy, Server, Settings};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

#[tokio::test]
async fn process_that_opens_a_store_when_told() {
    let Some(asked) = process::asked() else { return };
    let mut heard = process::heard();
    process::say("ready");
    heard.recv().await.unwrap();
    let text = |key: &str| asked[key].as_str().unwrap().to_owned();
    let opened = PostgresStore::options(text("url")).schema(text("schema")).open().await;
    process::say(&match opened {
        Ok(_) => "opened well".to_owned(),
        Err(error) => format!("opened not: {error}"),
    });
    heard.recv().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_that_open_an_empty_schema_at_once_make_it_once() {
    const PROCESSES: usize = 4;
    const STORES: usize = 6;
    for _ in 0..3 {
        let schema = schema().await;
        let job = json!({ "url": schema.url(), "schema": schema.name() });
        let mut processes: [Process; PROCESSES] =
            std::array::from_fn(|_| Process::start("process_that_opens_a_store_when_told", &job));
        for process in &mut processes {
            process.says("ready").await;
        }
        let barrier = Arc::new(Barrier::new(STORES));
        let mut stores = JoinSet::new();
        for _ in 0..STORES {
            let (barrier, options) = (Arc::clone(&barrier), options_at(schema.url(), &schema));
            stores.spawn(async move {
                barrier.wait().await;
                options.open().await.map(drop)
            });
        }
        processes.iter_mut().for_each(|process| process.tell("open"));
        for opened in stores.join_all().await {
            opened.unwrap();
        }
        for process in &mut processes {
            assert_eq!(process.says("opened").await, "well");
        }
        let mut database = connect(schema.url()).await;
        for (sql, expected) in [
            ("SELECT count(*) FROM {}.migration WHERE success", 1),
            ("SELECT count(*) FROM {}.migration", 1),
            ("SELECT count(*) FROM {}.task", 0),
        ] {
            assert_eq!(number(&mut database, schema.name(), sql).await, expected, "{sql}");
        }
    }
}

#[tokio::test]
async fn a_migration_that_is_cut_off_anywhere_can_be_run_again() {
    let template = template();
    for nth in 1.. {
        assert!(nth < 100, "opening takes no end");
        let schema = schema().await;
        let proxy = Proxy::to(schema.url()).await.unwrap();
        let url = proxy.url(schema.url()).unwrap();
        let lost = proxy.swallow_reply(nth, |_| true);
        // Only what makes the tables: a store's own connections come later.
        let migrated = options_at(&url, &schema).migrate_only().await;
        let done = migrated.is_ok();
        if !done {
            assert!(lost.happened().await, "{migrated:?}");
        }
        let store = open(&schema).await;
        store.create(vec![task(&template)], None).await.unwrap();
        store.close().await;
        if done {
            assert!(nth > 5, "a migration is more than {nth} statements");
            return;
        }
    }
}

#[tokio::test]
async fn who_opens_waits_for_a_migration_that_hangs_and_goes_on_when_it_is_gone() {
    // A database of its own: only these two sessions have locks in it.
    let database = Server::shared().await.unwrap().database().await.unwrap();
    let proxy = Arc::new(Proxy::to(database.url()).await.unwrap());
    let url = proxy.url(database.url()).unwrap();
    // It hangs with its locks taken and its first table about to be made.
    let network = Arc::clone(&proxy);
    _ = proxy.swallow_reply(1, move |sql| {
        if sql.contains("CREATE TABLE template") {
            network.freeze();
        }
        false
    });
    let hangs = PostgresStore::options(url).migrate_only();
    let waits = async {
        let mut observer = connect(database.url()).await;
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        while number(&mut observer, "", waiting).await == 0 {
            tokio::task::yield_now().await;
        }
        proxy.cut().await;
    };
    let opens = PostgresStore::open(database.url());
    let (cut, opened, ()) = tokio::join!(hangs, opens, waits);
    assert!(matches!(cut, Err(OpenError::Failed { .. })), "{cut:?}");
    opened.unwrap().create(vec![task(&template())], None).await.unwrap();
}

/// Roles are the server's, not the schema's: a server of its own.
#[tokio::test]
async fn a_user_with_the_right_to_read_and_write_rows_can_open_and_work() {
    let server = Server::start(Settings::default()).await.unwrap();
    let owner = server.url("postgres");
    let worker = |role: &str| owner.replace("postgres@", &format!("{role}@"));
    let mut database = connect(&owner).await;
    let mut run = async |sql: &'static str| {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut database).await.unwrap();
    };
    run("CREATE ROLE worker LOGIN; CREATE ROLE nobody LOGIN; CREATE ROLE reader LOGIN").await;

    // Before there is anything, and with a schema that it may not even look into.
    let opened = PostgresStore::open(worker("nobody")).await;
    assert!(matches!(opened, Err(OpenError::NotAllowed { .. })), "{opened:?}");
    let unmigrated = PostgresStore::options(worker("worker")).migrate(false).open().await;
    assert!(matches!(unmigrated, Err(OpenError::NotMigrated { .. })), "{unmigrated:?}");
    PostgresStore::options(&owner).migrate_only().await.unwrap();
    run("
        GRANT USAGE ON SCHEMA tasker TO worker, reader;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA tasker TO worker;
        GRANT SELECT ON ALL TABLES IN SCHEMA tasker TO reader")
    .await;
    for migrate in [true, false] {
        let refused = PostgresStore::options(worker("nobody")).migrate(migrate).open().await;
        assert!(matches!(refused, Err(OpenError::NotAllowed { .. })), "{refused:?}");
    }

    let template = template();
    for migrate in [true, false] {
        let store = PostgresStore::options(worker("worker")).migrate(migrate).open().await.unwrap();
        let id = living_worker(&store).await;
        store.create(vec![task(&template)], None).await.unwrap();
        let work = claim(&store, request(id, &template, 1)).await;
        let [claimed] = work.tasks.as_slice() else { panic!("nothing was claimed") };
        let ended = commit(&store, id, vec![end(claimed.id, claimed.version)]).await;
        assert_eq!(ended, [Applied::Yes]);
        assert_eq!(store.take_over(1).await.unwrap(), []);
        store.close().await;
    }

    // Who may only read can open, look, and hears why it cannot write.
    let store = PostgresStore::open(worker("reader")).await.unwrap();
    let refused = store.create(vec![task(&template)], None).await.unwrap_err();
    let StoreError::Unavailable { reason, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(reason, "PostgreSQL reported a lack of permission");
}

/// Whatever `DATABASE_URL` says: this server offers no TLS.
#[tokio::test]
async fn what_keeps_a_database_from_being_opened_is_told() {
    let server = Server::start(Settings::default()).await.unwrap();
    let url = server.url("postgres");
    let tables = "CREATE SCHEMA taken; CREATE TABLE taken.task (id INT)";
    sqlx::raw_sql(tables).execute(&mut connect(&url).await).await.unwrap();
    let separator = if url.contains('?') { '&' } else { '?' };
    let rows = [
        (url.clone(), "taken", "choose another schema"),
        (format!("{url}{separator}sslmode=verify-full"), "tasker", "the server offers no TLS"),
        ("postgres://me:a/b@localhost/here".to_owned(), "tasker", "%2F"),
        ("postgres://localhost:1/here".to_owned(), "tasker", "is it running"),
    ];
    for (url, schema, told) in rows {
        let opened = PostgresStore::options(&url).schema(schema).open().await;
        let error = opened.unwrap_err().to_string();
        assert!(error.contains(told), "{url}: {error}");
    }
}
