//! Workers are killed and stopped at random moments, handlers are dropped at random awaits, and
//! the books balance.

use std::future::poll_fn;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use tasker_core::{
    StepContext, StepHandler, StepResult, TaskRequest, TaskState, async_trait, step_fn,
};
use tasker_postgres::{PostgresStore, TransactionalStep};

use crate::bank::{Bank, Then, Transfer, ended, in_time, single, submit, tasker, transfer};

/// Tells a process of this test where to work.
const URL: &str = "TASKER_POSTGRES_TEST_URL";

const TRANSFERS: i64 = 500;

/// Takes a moment before and after, so that it can be cut off anywhere.
struct Slowly;

#[async_trait]
impl TransactionalStep for Slowly {
    async fn process(&self, step: StepContext, transaction: &mut PgConnection) -> StepResult {
        let output = transfer(&step, transaction).await?;
        tokio::time::sleep(Duration::from_millis(3)).await;
        Ok(output)
    }
}

async fn bank_clerk(url: String) {
    let store = Arc::new(PostgresStore::open(url).await.unwrap());
    let tasker = tasker(&store, single(), store.transactional(Slowly));
    let _worker = tasker.worker().slots(4).lease(Duration::from_secs(1)).start();
    std::future::pending::<()>().await;
}

fn hire(url: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kills::the_books_balance_after_random_kills"])
        .env(URL, url)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, signal: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
}

/// Numbers that look random (SplitMix64).
fn dice(seed: &mut u64, below: u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)) % below
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_balance_after_random_kills() {
    if let Ok(url) = std::env::var(URL) {
        return bank_clerk(url).await;
    }
    let bank = Bank::open().await;
    sqlx::raw_sql("UPDATE account SET cents = 1000 * cents").execute(&bank.pool).await.unwrap();
    let store = bank.store().await;
    let tasker = tasker(&store, single(), step_fn(|_: StepContext| async { Ok(()) }));
    let requests = (1..=TRANSFERS).map(|cents| TaskRequest::new("transfer", &cents).unwrap());
    let receipts = tasker.submit_all(requests.collect()).await.unwrap();
    let url = bank.database.url();
    let mut clerks = [hire(url), hire(url)];
    let mut seed = 7;
    let done = "SELECT count(*) FROM transfer";
    let mut incidents = 0;
    in_time(async {
        while bank.number(done).await < TRANSFERS {
            tokio::time::sleep(Duration::from_millis(150 + dice(&mut seed, 350))).await;
            let clerk = &mut clerks[incidents % 2];
            if incidents % 5 == 4 {
                // Stopped past its lease, and let go on.
                signal(clerk, "-STOP");
                tokio::time::sleep(Duration::from_millis(1_500)).await;
                signal(clerk, "-CONT");
            } else {
                clerk.kill().unwrap();
                clerk.wait().unwrap();
                *clerk = hire(url);
            }
            incidents += 1;
        }
    })
    .await;
    for receipt in receipts {
        let status = ended(&tasker, receipt.unwrap().id).await;
        assert_eq!(status.state, TaskState::Complete);
    }
    for clerk in &mut clerks {
        clerk.kill().unwrap();
        clerk.wait().unwrap();
    }
    println!("{incidents} incidents");
    assert!(incidents > 3, "too fast to be disturbed");
    assert_eq!(bank.number(done).await, TRANSFERS);
    assert_eq!(bank.number("SELECT count(DISTINCT key) FROM transfer").await, TRANSFERS);
    let moved = TRANSFERS * (TRANSFERS + 1) / 2;
    assert_eq!(
        bank.number("SELECT cents FROM account WHERE id = 1").await,
        1_000_000 - moved,
        "after {incidents} incidents"
    );
    assert_eq!(bank.number("SELECT cents FROM account WHERE id = 2").await, 1_000_000 + moved);
    bank.is_quiet().await;
}

/// Drops an attempt after ever more polls, until it ends before.
struct Cut<H>(H);

#[async_trait]
impl<H: StepHandler> StepHandler for Cut<H> {
    async fn process(&self, step: StepContext) -> StepResult {
        let mut polls = 0;
        loop {
            let mut attempt = pin!(self.0.process(step.clone()));
            let mut left = polls;
            let ended = poll_fn(|context| {
                if left == 0 {
                    return Poll::Ready(None);
                }
                left -= 1;
                attempt.as_mut().poll(context).map(Some)
            });
            if let Some(ended) = ended.await {
                return ended;
            }
            polls += 1;
        }
    }
}

/// Nothing more than the transfer.
struct Done;

#[async_trait]
impl Then for Done {
    async fn act(&self, _: usize, step: &StepContext, _: &mut PgConnection) -> StepResult {
        step.complete("done")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_dropped_at_any_await_leaves_nothing_open() {
    /// So many attempts must be dropped after their handler was called: how many of a task's are
    /// depends on how often its future is polled.
    const DROPPED: i64 = 40;
    let bank = Bank::open().await;
    let store = Arc::new(bank.options().transactional_steps(1).open().await.unwrap());
    let handler = Transfer::new(Done);
    let calls = handler.calls.clone();
    let tasker = tasker(&store, single(), Cut(store.transactional(handler)));
    let worker = tasker.worker().start();
    let mut tasks = 0;
    while i64::try_from(calls.load(Ordering::Relaxed)).unwrap() - tasks < DROPPED {
        assert!(tasks < 100, "hardly any attempt is dropped while it is under way");
        let task = submit(&tasker).await;
        assert_eq!(ended(&tasker, task).await.state, TaskState::Complete);
        tasks += 1;
    }
    bank.is_quiet().await;
    assert_eq!(bank.state().await, (1_000 - 10 * tasks, tasks));
    worker.shutdown(Duration::from_secs(5)).await;
}
