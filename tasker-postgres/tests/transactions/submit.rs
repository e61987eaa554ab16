//! A task that is submitted in a transaction exists if and only if what else it writes does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tasker_core::store::{ClaimRequest, Claimed, Heartbeat, Route, StateStore, StoreError};
use tasker_core::{
    StepContext, StepError, StepResult, SubmitError, TaskRequest, TaskState, Tasker, WorkerId,
    async_trait, step_fn,
};
use tasker_postgres::{PostgresStore, TransactionalStep};
use tasker_postgres_kit::Server;

use crate::bank::{Bank, ended, in_time, single, submit, tasker, transfer};

const HOUR: Duration = Duration::from_secs(3600);

fn request() -> TaskRequest {
    TaskRequest::new("transfer", &10).unwrap()
}

fn idle(store: &Arc<PostgresStore>) -> Tasker {
    tasker(store, single(), step_fn(|_: StepContext| async { Ok(()) }))
}

#[tokio::test]
async fn after_a_rollback_nothing_was_submitted() {
    let bank = Bank::open().await;
    let store = bank.store().await;
    let tasker = idle(&store);
    let mut transaction = bank.pool.begin().await.unwrap();
    let request = request().idempotency_key("once");
    let receipt = store.submit_in(&tasker, &mut transaction, request.clone()).await.unwrap();
    assert!(tasker.status(receipt.id).await.unwrap().is_none(), "not before the commit");
    transaction.rollback().await.unwrap();
    assert!(tasker.status(receipt.id).await.unwrap().is_none());
    for table in ["task", "queue", "idempotency"] {
        assert_eq!(bank.number(&format!("SELECT count(*) FROM tasker.{table}")).await, 0);
    }
    let again = tasker.submit(request).await.unwrap();
    assert!(!again.already_existed, "the key is free");
}

#[tokio::test]
async fn a_commit_submits_and_tells_workers_of_every_store() {
    let bank = Bank::open().await;
    // None of them looks by itself.
    let open = || async { Arc::new(bank.options().longest_poll(HOUR).open().await.unwrap()) };
    let (here, there) = (open().await, open().await);
    let tasker = idle(&here);
    for store in [&here, &there, &here, &there] {
        let worker = WorkerId::new();
        let beat = Heartbeat {
            worker,
            name: "test".to_owned(),
            lease: Some(HOUR),
            spare: 1,
            running: Vec::new(),
        };
        store.renew(beat).await.unwrap();
        let template = single().build().unwrap();
        let routes = Arc::new(BTreeSet::from([Route::of(&template)]));
        let claim = async || {
            let routes = routes.clone();
            let request = ClaimRequest { worker, routes, tasks: 1, offers: 0, holding: None };
            match store.claim(request).await.unwrap() {
                Claimed::Work(work) => work.tasks,
                Claimed::LeaseLost => panic!("its lease is long"),
            }
        };
        assert!(claim().await.is_empty());
        let mut transaction = bank.pool.begin().await.unwrap();
        let receipt = here.submit_in(&tasker, &mut transaction, request()).await.unwrap();
        assert!(claim().await.is_empty());
        transaction.commit().await.unwrap();
        let claimed = in_time(async {
            loop {
                store.wait_for_work(worker, HOUR).await;
                let tasks = claim().await;
                if let Some(task) = tasks.first() {
                    return task.id;
                }
            }
        });
        assert_eq!(claimed.await, receipt.id);
    }
}

#[tokio::test]
async fn keys_work_as_they_do_elsewhere() {
    let bank = Bank::open().await;
    let store = bank.store().await;
    let tasker = idle(&store);
    let keyed = || request().idempotency_key("key");
    let mut transaction = bank.pool.begin().await.unwrap();
    let first = store.submit_in(&tasker, &mut transaction, keyed()).await.unwrap();
    let second = store.submit_in(&tasker, &mut transaction, keyed()).await.unwrap();
    assert_eq!((second.id, second.already_existed), (first.id, true));
    let other = TaskRequest::new("transfer", &11).unwrap().idempotency_key("key");
    let conflict = store.submit_in(&tasker, &mut transaction, other).await;
    let Err(SubmitError::IdempotencyConflict { existing }) = conflict else {
        panic!("{conflict:?}");
    };
    assert_eq!(existing, first.id);

    // Somebody else waits for it.
    let mut other = bank.pool.begin().await.unwrap();
    let (third, ()) = in_time(async {
        tokio::join!(store.submit_in(&tasker, &mut other, keyed()), async {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                         AND wait_event_type = 'Lock'";
            while bank.number(waits).await == 0 {}
            transaction.commit().await.unwrap();
        })
    })
    .await;
    assert_eq!(third.unwrap().id, first.id);
    other.rollback().await.unwrap();
    assert!(tasker.status(first.id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_failure_says_nothing_of_the_statement() {
    let bank = Bank::open().await;
    let store = bank.store().await;
    let tasker = idle(&store);
    let elsewhere = Server::shared().await.unwrap().database().await.unwrap();
    let mut connection = PgConnection::connect(elsewhere.url()).await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    let failed = store.submit_in(&tasker, &mut transaction, request()).await;
    let Err(SubmitError::Store(error @ StoreError::Damaged { .. })) = failed else {
        panic!("{failed:?}");
    };
    let said = format!("{error} {error:?}");
    assert!(said.contains("42P01"), "{said}");
    assert!(!said.contains("INSERT") && !said.contains("idempotency"), "{said}");
}

/// Submits the next task in the transaction of its own step.
struct Chain(Arc<PostgresStore>);

#[async_trait]
impl TransactionalStep for Chain {
    async fn process(&self, step: StepContext, transaction: &mut PgConnection) -> StepResult {
        let left: u32 = step.context()?;
        if left > 0 {
            let tasker = idle(&self.0);
            let next = TaskRequest::new("transfer", &(left - 1)).unwrap();
            self.0.submit_in(&tasker, &mut *transaction, next).await.unwrap();
        }
        transfer(&step, transaction).await?;
        if step.attempt() == 1 {
            return Err(StepError::retryable("once more"));
        }
        step.complete(&left)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transactional_step_submits_the_next_task_once() {
    let bank = Bank::open().await;
    let store = bank.store().await;
    let tasker = tasker(&store, single(), store.transactional(Chain(store.clone())));
    let worker = tasker.worker().start();
    let first = submit(&tasker).await;
    assert_eq!(ended(&tasker, first).await.state, TaskState::Complete);
    let complete = "SELECT count(*) FROM tasker.task WHERE state = 'complete'";
    in_time(async { while bank.number(complete).await < 11 {} }).await;
    assert_eq!(bank.number("SELECT count(*) FROM tasker.task").await, 11);
    assert_eq!(bank.state().await, (1_000 - 55, 11));
    worker.shutdown(Duration::from_secs(5)).await;
}
