//! What a client sees through the proxy, and what the server has done meanwhile.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection, postgres::PgPoolOptions};
use tasker_postgres_kit::{Database, Proxy, Server};

/// A table with a counter, a proxy before it, and a connection each way.
struct Stand {
    database: Database,
    proxy: Proxy,
    direct: PgConnection,
    client: PgConnection,
}

async fn stand() -> Stand {
    let database = Server::shared().await.unwrap().database().await.unwrap();
    let mut direct = PgConnection::connect(database.url()).await.unwrap();
    direct.execute("CREATE TABLE t (n int)").await.unwrap();
    let proxy = Proxy::to(database.url()).await.unwrap();
    let client = PgConnection::connect(&proxy.url(database.url()).unwrap()).await.unwrap();
    Stand { database, proxy, direct, client }
}

impl Stand {
    async fn rows(&mut self) -> i64 {
        rows(&mut self.direct).await
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect(&self.proxy.url(self.database.url()).unwrap()).await
    }
}

async fn rows(direct: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(direct).await.unwrap()
}

async fn insert(client: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO t VALUES ($1)").bind(1).execute(client).await.map(drop)
}

#[tokio::test]
async fn a_commit_whose_reply_is_swallowed_has_happened() {
    let mut stand = stand().await;
    let lost = stand.proxy.swallow_reply(2, |sql| sql == "COMMIT");
    for round in 1..=2 {
        let mut transaction = stand.client.begin().await.unwrap();
        insert(&mut transaction).await.unwrap();
        assert_eq!(transaction.commit().await.is_err(), round == 2, "round {round}");
    }
    assert!(lost.happened().await);
    assert_eq!(stand.rows().await, 2);
    assert!(insert(&mut stand.client).await.is_err());
    // The next connection has its replies.
    let mut next = stand.connect().await.unwrap();
    insert(&mut next).await.unwrap();
    assert_eq!(stand.rows().await, 3);
}

#[tokio::test]
async fn the_next_reply_is_swallowed_of_a_statement_that_is_prepared_already() {
    let mut stand = stand().await;
    insert(&mut stand.client).await.unwrap();
    let lost = stand.proxy.swallow_next_reply();
    assert!(insert(&mut stand.client).await.is_err());
    assert!(lost.happened().await);
    assert_eq!(stand.rows().await, 2);
}

#[tokio::test]
async fn neither_connecting_nor_preparing_is_what_executes() {
    let mut stand = stand().await;
    let lost = stand.proxy.swallow_reply(1, |sql| sql.starts_with("INSERT"));
    let mut other = stand.connect().await.unwrap();
    assert!(insert(&mut other).await.is_err());
    assert!(lost.happened().await);
    assert_eq!(stand.rows().await, 1);
}

#[tokio::test]
async fn a_cut_closes_what_is_open_and_nothing_else() {
    let mut stand = stand().await;
    stand.proxy.cut().await;
    assert!(insert(&mut stand.client).await.is_err());
    let mut next = stand.connect().await.unwrap();
    insert(&mut next).await.unwrap();
    assert_eq!(stand.rows().await, 1);
}

#[tokio::test]
async fn new_connections_are_refused_and_open_ones_are_not() {
    let mut stand = stand().await;
    stand.proxy.refuse(true);
    assert!(stand.connect().await.is_err());
    insert(&mut stand.client).await.unwrap();
    stand.proxy.refuse(false);
    stand.connect().await.unwrap();
}

#[tokio::test]
async fn what_is_frozen_arrives_after_the_thaw() {
    let mut stand = stand().await;
    stand.proxy.freeze();
    {
        let Stand { proxy, direct, client, .. } = &mut stand;
        let mut inserting = std::pin::pin!(insert(client));
        tokio::select! {
            biased;
            _ = &mut inserting => panic!("it went through the ice"),
            // Time enough for it, many times over.
            () = async { for _ in 0..50 { assert_eq!(rows(direct).await, 0); } } => {}
        }
        proxy.thaw();
        inserting.await.unwrap();
    }
    assert_eq!(stand.rows().await, 1);
}

#[tokio::test]
async fn a_delayed_request_takes_the_delay_both_ways() {
    let mut stand = stand().await;
    insert(&mut stand.client).await.unwrap();
    stand.proxy.delay(Duration::from_millis(30));
    let began = tokio::time::Instant::now();
    insert(&mut stand.client).await.unwrap();
    // A lower bound, which no load can break.
    assert!(began.elapsed() >= Duration::from_millis(60));
}

#[tokio::test]
async fn much_data_goes_through_many_connections_unharmed() {
    let stand = stand().await;
    let url = stand.proxy.url(stand.database.url()).unwrap();
    let pool = PgPoolOptions::new().max_connections(8).connect(&url).await.unwrap();
    let mut reads = tokio::task::JoinSet::new();
    for n in 0..32 {
        let pool = pool.clone();
        reads.spawn(async move {
            let sent = format!("{n}").repeat(100_000);
            let back: String =
                sqlx::query_scalar("SELECT $1").bind(&sent).fetch_one(&pool).await.unwrap();
            assert!(sent == back);
        });
    }
    reads.join_all().await;
}
