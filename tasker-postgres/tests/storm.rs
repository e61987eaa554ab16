//! Workers that are killed all the time, and what is left of it: nothing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod fixture;

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use fixture::orders::{self, Ledger, work_at};
use fixture::process::Process;
use fixture::{Dice, connect, eventually, number, open, schema};
use sqlx::{Connection, PgConnection};
use tasker_core::Tasker;

const ORDERS: usize = 2_000;
const STEPS: i64 = 3;
const WORKERS: usize = 4;
const STORM: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(2);

/// How long after the end of a lease its tasks are somebody else's: a moment, and a machine that
/// other tests share.
const TAKEN_OVER: Duration = Duration::from_secs(10);

#[tokio::test]
async fn process_that_works_until_it_is_killed() {
    orders::work_if_asked().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minute_of_dying_workers_loses_nothing_and_repeats_nothing() {
    if fixture::process::asked().is_some() {
        return;
    }
    let schema = schema().await;
    let folder = tempfile::tempdir().unwrap();
    let latency = Duration::from_millis(300);
    let workflow = orders::workflow(folder.path(), latency);
    let tasker = Tasker::builder(open(&schema).await).register(workflow).build().unwrap();
    let job = work_at((schema.url(), schema.name()), folder.path(), latency, LEASE);
    let start = || Process::start("process_that_works_until_it_is_killed", &job);
    let mut workers: [Process; WORKERS] = std::array::from_fn(|_| start());
    for worker in &mut workers {
        worker.says("working").await;
    }

    let mut database = connect(schema.url()).await;
    let mut dice = Dice::new();
    let (mut placed, mut kills, longest) = (0, 0, Cell::new(0));
    let began = Instant::now();
    while began.elapsed() < STORM {
        // Orders come all the time; the last ones while there is still something to survive.
        let due = ORDERS.min((began.elapsed().as_millis() as usize + 2_000) * ORDERS / 58_000);
        let batch = (placed..due).map(orders::order).collect();
        tasker.submit_all(batch).await.unwrap();
        placed = due;
        let victim = &mut workers[dice.below(WORKERS)];
        let ended = victim.ends_within(dice.millis(300, 1_000)).await;
        assert!(ended.is_none(), "a worker ended by itself: {ended:?}");
        victim.kill();
        *victim = start();
        kills += 1;
        longest.set(longest.get().max(overdue(&mut database, schema.name()).await));
    }
    assert_eq!(placed, ORDERS);
    assert!(kills > 30, "{kills} kills are no storm");
    eventually("every order ends", || async {
        let mut database = connect(schema.url()).await;
        longest.set(longest.get().max(overdue(&mut database, schema.name()).await));
        let open = "SELECT count(*) FROM {}.task WHERE state <> 'complete'";
        let open = number(&mut database, schema.name(), open).await;
        database.close().await.unwrap();
        open == 0
    })
    .await;

    let longest = longest.get();
    let lost = "SELECT count(*) FROM {}.history WHERE kind = 'worker_lost'";
    let lost = number(&mut database, schema.name(), lost).await;
    println!("{kills} kills, {lost} tasks taken over, at most {longest} ms after their lease");
    assert!(lost > 0, "nobody died at work");
    assert!(u128::try_from(longest).unwrap() < TAKEN_OVER.as_millis(), "{longest} ms");
    nothing_was_lost_or_repeated(&mut database, schema.name(), folder.path()).await;
}

/// For how many milliseconds the lease of a worker that still owns tasks has been over.
async fn overdue(database: &mut PgConnection, schema: &str) -> i64 {
    let overdue = "
        SELECT coalesce(max(extract(epoch FROM now() - worker.expires_at) * 1000), 0)::bigint
        FROM {}.worker
        WHERE worker.expires_at < now()
            AND EXISTS (SELECT FROM {}.task WHERE task.owner = worker.id)";
    number(database, schema, overdue).await
}

async fn nothing_was_lost_or_repeated(database: &mut PgConnection, schema: &str, ledger: &Path) {
    let orders = ORDERS as i64;
    for (sql, expected) in [
        ("SELECT count(*) FROM {}.task", orders),
        ("SELECT count(*) FROM {}.history WHERE kind = 'completed'", orders * STEPS),
        (
            "SELECT count(DISTINCT (task, step)) FROM {}.history WHERE kind = 'completed'",
            orders * STEPS,
        ),
        ("SELECT count(*) FROM {}.history WHERE kind NOT IN ('completed', 'worker_lost')", 0),
        ("SELECT count(*) FROM {}.queue", 0),
        ("SELECT count(*) FROM {}.offer", 0),
    ] {
        assert_eq!(number(database, schema, sql).await, expected, "{sql}");
    }
    let charges = Ledger(ledger.to_owned()).charges();
    assert_eq!(charges.len(), ORDERS);
    assert!(charges.values().all(|charges| *charges == 1), "somebody paid twice");
}
