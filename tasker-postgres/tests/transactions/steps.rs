//! What a transactional step does happens once, whatever happens to it.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tasker_core::store::StateStore;
use tasker_core::{
    StepContext, StepError, StepResult, StepTemplate, TaskState, TaskTemplate, async_trait,
};
use tasker_postgres::{PostgresStore, sql_error};
use tasker_postgres_kit::Proxy;

use crate::bank::{Bank, Then, Transfer, ended, in_time, single, step, submit, tasker};

/// What goes wrong in an attempt.
#[derive(Clone)]
enum Twist {
    Nothing,
    Fails,
    Panics,
    Hangs,
    /// It hangs within a statement.
    Sleeps,
    /// The worker is taken over meanwhile.
    TakenOver(Arc<PostgresStore>, String),
    Commits,
    RollsBack,
    Overdraws,
    /// A statement fails, and it goes on.
    Ignores,
    /// Within a savepoint of its own.
    Recovers,
    /// It leaves a savepoint open for good.
    Leaks,
}

#[async_trait]
impl Then for Twist {
    async fn act(&self, call: usize, step: &StepContext, on: &mut PgConnection) -> StepResult {
        let done = step.complete("done");
        if call > 0 {
            return done;
        }
        let overdraw = sqlx::query("UPDATE account SET cents = -7 WHERE id = 1");
        match self {
            Self::Nothing => {}
            Self::Fails => return Err(StepError::retryable("not today")),
            Self::Panics => panic!("on purpose"),
            Self::Hangs => pending().await,
            Self::Sleeps => {
                sqlx::query("SELECT pg_sleep(3600)").execute(on).await.map_err(sql_error)?;
            }
            Self::TakenOver(other, url) => {
                let mut direct = PgConnection::connect(url).await.unwrap();
                let expire = "UPDATE tasker.worker SET expires_at = now() - interval '1 hour'";
                sqlx::query(expire).execute(&mut direct).await.unwrap();
                assert_eq!(other.take_over(8).await.unwrap().len(), 1);
            }
            Self::Commits => _ = sqlx::raw_sql("COMMIT").execute(on).await,
            Self::RollsBack => _ = sqlx::raw_sql("ROLLBACK; BEGIN").execute(on).await,
            Self::Overdraws => _ = overdraw.execute(on).await.map_err(sql_error)?,
            Self::Ignores => assert!(overdraw.execute(on).await.is_err()),
            Self::Recovers => {
                let mut within = on.begin().await.map_err(sql_error)?;
                assert!(overdraw.execute(&mut *within).await.is_err());
                within.rollback().await.map_err(sql_error)?;
            }
            Self::Leaks => std::mem::forget(on.begin().await.map_err(sql_error)?),
        }
        done
    }
}

/// Runs one task and says how its handler's calls and attempts were numbered.
async fn run(bank: &Bank, twist: Twist) -> (TaskState, usize, Vec<String>) {
    let store = bank.store().await;
    let transfer = Transfer::new(twist);
    let calls = transfer.calls.clone();
    let template = TaskTemplate::builder("transfer")
        .step(step("transfer").timeout(Duration::from_millis(700)));
    let tasker = tasker(&store, template, store.transactional(transfer));
    let worker = tasker.worker().start();
    let task = submit(&tasker).await;
    let status = ended(&tasker, task).await;
    let rows = tasker.history(task).await.unwrap().unwrap();
    let failures = rows.iter().filter_map(|row| row.failure.as_ref().map(|it| it.code.clone()));
    let failures = failures.collect();
    worker.shutdown(Duration::from_secs(5)).await;
    store.close().await;
    bank.is_quiet().await;
    (status.state, calls.load(Ordering::Relaxed), failures)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_and_its_effects_are_recorded_together() {
    let bank = Bank::open().await;
    let (state, calls, failures) = run(&bank, Twist::Nothing).await;
    assert_eq!((state, calls, failures.len()), (TaskState::Complete, 1, 0));
    assert_eq!(bank.state().await, (990, 1));
    let late = "SELECT count(*) FROM tasker.history JOIN tasker.task ON task.id = history.task \
                WHERE history.at < task.created_at OR history.at > task.ended_at";
    assert_eq!(bank.number(late).await, 0, "it is recorded when it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_waits_five_seconds_for_the_commit_of_a_recorded_step() {
    let bank = Bank::open().await;
    // Noted by the commit itself, when the worker is locked.
    let note = "
        CREATE TABLE noted (idle text);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO noted SELECT current_setting('idle_in_transaction_session_timeout');
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER note AFTER INSERT ON transfer
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note()";
    sqlx::raw_sql(note).execute(&bank.pool).await.unwrap();
    let (state, ..) = run(&bank, Twist::Nothing).await;
    assert_eq!(state, TaskState::Complete);
    // However long the step itself may take.
    assert_eq!(bank.number("SELECT count(*) FROM noted WHERE idle = '5s'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_fails_leaves_nothing_behind() {
    for (twist, code) in [
        (Twist::Fails, "RETRYABLE"),
        (Twist::Panics, "PANICKED"),
        (Twist::Hangs, "TIMED_OUT"),
        (Twist::Sleeps, "TIMED_OUT"),
        (Twist::Ignores, "SQLSTATE_25P02"),
    ] {
        let bank = Bank::open().await;
        let (state, calls, failures) = run(&bank, twist).await;
        assert_eq!((state, failures[0].as_str()), (TaskState::Complete, code));
        assert!(calls >= 2);
        assert_eq!(bank.state().await, (990, 1), "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_refuses_for_good_is_not_tried_again() {
    let bank = Bank::open().await;
    let (state, calls, failures) = run(&bank, Twist::Overdraws).await;
    assert_eq!((state, calls, failures), (TaskState::Error, 1, vec!["SQLSTATE_23514".to_owned()]));
    assert_eq!(bank.state().await, (1_000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_may_begin_savepoints() {
    let bank = Bank::open().await;
    let (state, calls, _) = run(&bank, Twist::Recovers).await;
    assert_eq!((state, calls), (TaskState::Complete, 1));
    assert_eq!(bank.state().await, (990, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_ends_the_transaction_is_told_so() {
    for (twist, left) in
        [(Twist::Commits, (990, 1)), (Twist::RollsBack, (1_000, 0)), (Twist::Leaks, (1_000, 0))]
    {
        let bank = Bank::open().await;
        let (state, calls, failures) = run(&bank, twist).await;
        assert_eq!((state, calls), (TaskState::Error, 1));
        assert_eq!(failures, ["TRANSACTION_ENDED"]);
        assert_eq!(bank.state().await, left);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lost_its_lease_records_nothing() {
    let bank = Bank::open().await;
    let other = bank.store().await;
    let twist = Twist::TakenOver(other, bank.database.url().to_owned());
    let (state, calls, failures) = run(&bank, twist).await;
    assert_eq!((state, calls, failures.len()), (TaskState::Complete, 2, 0));
    assert_eq!(bank.state().await, (990, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_counts() {
    let bank = Bank::open().await;
    let proxy = Proxy::to(bank.database.url()).await.unwrap();
    let url = proxy.url(bank.database.url()).unwrap();
    let store = Arc::new(PostgresStore::open(url).await.unwrap());
    let transfer = Transfer::new(Twist::Nothing);
    let calls = transfer.calls.clone();
    let tasker = tasker(&store, single(), store.transactional(transfer));
    let worker = tasker.worker().start();
    for round in 1..=5 {
        let lost = proxy.swallow_reply(1, |sql| sql == "COMMIT");
        let task = submit(&tasker).await;
        assert_eq!(ended(&tasker, task).await.state, TaskState::Complete);
        assert!(lost.happened().await);
        assert_eq!(calls.load(Ordering::Relaxed), round, "none is made again");
    }
    assert_eq!(bank.state().await, (950, 5));
    worker.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offered_steps_have_transactions_too() {
    const WIDTH: usize = 12;
    let bank = Bank::open().await;
    let (here, there) = (bank.store().await, bank.store().await);
    let names: Vec<_> = (0..WIDTH).map(|number| format!("part {number}")).collect();
    let template = || {
        let template = TaskTemplate::builder("transfer");
        names.iter().fold(template, |template, name| template.step(step(name)))
    };
    let mut workers = Vec::new();
    let taskers = [&here, &there]
        .map(|store| tasker(store, template(), store.transactional(Transfer::new(Twist::Nothing))));
    for tasker in &taskers {
        workers.push(tasker.worker().slots(1).start());
    }
    sqlx::raw_sql("UPDATE account SET cents = 1000 * cents").execute(&bank.pool).await.unwrap();
    // The owner offers steps once it has heard of the other.
    let helped = "SELECT count(DISTINCT worker) FROM tasker.history WHERE step >= 0";
    let mut tasks = 0;
    in_time(async {
        while bank.number(helped).await < 2 {
            let task = submit(&taskers[0]).await;
            assert_eq!(ended(&taskers[0], task).await.state, TaskState::Complete);
            tasks += 1;
        }
    })
    .await;
    let transfers = tasks * i64::try_from(WIDTH).unwrap();
    assert_eq!(bank.number("SELECT count(*) FROM transfer").await, transfers);
    let left = bank.number("SELECT cents FROM account WHERE id = 1").await;
    assert_eq!(left, 1_000_000 - 10 * transfers);
    for worker in workers {
        worker.shutdown(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_the_store_rolls_back_what_is_under_way() {
    let bank = Bank::open().await;
    let store = bank.store().await;
    let transfer = Transfer::new(Twist::Sleeps);
    let calls = transfer.calls.clone();
    let tasker = tasker(&store, single(), store.transactional(transfer));
    let _worker = tasker.worker().start();
    submit(&tasker).await;
    in_time(async {
        while calls.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        store.close().await;
    })
    .await;
    bank.is_quiet().await;
    assert_eq!(bank.state().await, (1_000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_steps_than_connections_take_turns() {
    let bank = Bank::open().await;
    let store = Arc::new(bank.options().transactional_steps(1).open().await.unwrap());
    let names: Vec<_> = (0..20).map(|number| format!("part {number}")).collect();
    let template = TaskTemplate::builder("transfer");
    let retry_never = |name| StepTemplate::new(name).handler("transfer");
    let template = names.iter().fold(template, |it, name| it.step(retry_never(name.as_str())));
    let tasker = tasker(&store, template, store.transactional(Transfer::new(Twist::Nothing)));
    let worker = tasker.worker().slots(20).start();
    let task = submit(&tasker).await;
    assert_eq!(ended(&tasker, task).await.state, TaskState::Complete);
    assert_eq!(bank.state().await, (800, 20));
    worker.shutdown(Duration::from_secs(5)).await;
}
