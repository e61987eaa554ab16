//! Calls that meet somebody else's transaction half-way. It is played by a session of the test's own.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::time::Duration;

use fixture::{
    HOUR, commit, completed, connect, end, living_worker, number, open, options_at, schema, settle,
    task, template,
};
use sqlx::{AssertSqlSafe, PgConnection};
use tasker_core::history::Author;
use tasker_core::store::{
    Applied, Assumption, Committed, Created, NewOffer, Route, StateStore, StoreError, TaskChange,
    Then,
};
use tasker_core::{StepIndex, TaskId, TaskState, Timestamp};
use tasker_postgres_kit::Schema;

/// A session of somebody else.
struct Other {
    session: PgConnection,
    observer: PgConnection,
    schema: String,
    process: i64,
}

impl Other {
    async fn at(schema: &Schema) -> Self {
        let (mut session, observer) = (connect(schema.url()).await, connect(schema.url()).await);
        let process = number(&mut session, "", "SELECT pg_backend_pid()::bigint").await;
        Self { session, observer, schema: schema.name().to_owned(), process }
    }

    /// Does something; `{}` stands for the schema.
    async fn run(&mut self, sql: String) {
        let sql = AssertSqlSafe(sql.replace("{}", &self.schema));
        sqlx::raw_sql(sql).execute(&mut self.session).await.unwrap();
    }

    async fn count(&mut self, sql: &str) -> i64 {
        number(&mut self.observer, &self.schema, sql).await
    }

    /// How many sessions wait for this one.
    async fn waiting(&mut self) -> i64 {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE {} = ANY (pg_blocking_pids(pid))",
            self.process
        );
        self.count(&sql).await
    }

    /// Ends its transaction as soon as somebody waits for it.
    async fn commits_once_waited_for(&mut self) {
        while self.waiting().await == 0 {
            tokio::task::yield_now().await;
        }
        self.run("COMMIT".to_owned()).await;
    }
}

fn again(task: TaskId, version: u64) -> TaskChange {
    let route = Route::of(&template());
    let then = Then::Queue { state: TaskState::Pending, wake_in: Duration::ZERO, route };
    let assumes = Assumption::Unmoved { version };
    let (rows, offers, review) = (vec![completed(0, 1)], Vec::new(), false);
    TaskChange { task, assumes, rows, offers, then, degraded: None, review }
}

#[tokio::test]
async fn a_row_that_appears_while_it_is_added_is_a_conflict() {
    let schema = schema().await;
    let store = options_at(schema.url(), &schema).deadline(2 * HOUR).open().await.unwrap();
    let new = task(&template());
    let id = new.id;
    let worker = living_worker(&store).await;
    store.create(vec![new], Some(worker)).await.unwrap();
    let mut other = Other::at(&schema).await;
    // A commit of the same row whose answer was lost, before the server is done with it.
    let insert = "BEGIN; INSERT INTO {}.history (task, step, seq, at, attempt, ran_for, kind) ";
    other.run(format!("{insert} VALUES ('{}', 0, 1, now(), 1, 0, 'skipped')", id.as_uuid())).await;
    // Offers take a transaction of several statements.
    let offer = NewOffer {
        step: StepIndex(1),
        seq: 1,
        route: Route::of(&template()),
        needs: vec![StepIndex(0)],
    };
    let change = TaskChange { offers: vec![offer], ..settle(id, 1, completed(0, 1)) };
    let (applied, ()) =
        tokio::join!(commit(&store, worker, vec![change]), other.commits_once_waited_for());
    assert_eq!(applied, [Applied::Conflict]);
    assert_eq!(other.count("SELECT count(*) FROM {}.offer").await, 0);
}

#[tokio::test]
async fn a_task_that_is_deleted_while_an_operator_acts_on_it_leaves_nothing_behind() {
    let schema = schema().await;
    let store = options_at(schema.url(), &schema).deadline(2 * HOUR).open().await.unwrap();
    let new = task(&template());
    let id = new.id;
    let worker = living_worker(&store).await;
    store.create(vec![new], Some(worker)).await.unwrap();
    assert_eq!(commit(&store, worker, vec![end(id, 1)]).await, [Applied::Yes]);
    let mut other = Other::at(&schema).await;
    other.run(format!("BEGIN; DELETE FROM {{}}.task WHERE id = '{}'", id.as_uuid())).await;
    let author = Author::Operator("ada".to_owned());
    let (committed, ()) =
        tokio::join!(store.commit(&author, vec![again(id, 2)]), other.commits_once_waited_for());
    let Committed::Changes { applied, .. } = committed.unwrap() else { panic!("no lease") };
    assert_eq!(applied, [Applied::Conflict]);
    assert_eq!(other.count("SELECT count(*) FROM {}.queue").await, 0);
    assert_eq!(other.count("SELECT count(*) FROM {}.history").await, 0);
}

#[tokio::test]
async fn the_time_is_told_whether_or_not_there_is_such_a_task() {
    let schema = schema().await;
    let store = open(&schema).await;
    let worker = living_worker(&store).await;
    let assumes = Assumption::OfferHeld { step: StepIndex(0), seq: 1 };
    let settled = TaskChange { assumes, ..settle(TaskId::new(), 1, completed(0, 1)) };
    let operator = Author::Operator("ada".to_owned());
    let long_ago: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
    for (author, changes) in [
        (Author::Worker(worker), vec![settled]),
        (operator.clone(), vec![again(TaskId::new(), 2)]),
        (operator, Vec::new()),
    ] {
        let Committed::Changes { now, applied } = store.commit(&author, changes).await.unwrap()
        else {
            panic!("the lease is alive")
        };
        assert!(applied.iter().all(|applied| *applied == Applied::Conflict));
        assert!(now > long_ago, "{now}");
    }
}

#[tokio::test]
async fn a_key_that_somebody_keeps_for_long_holds_up_nobody_else() {
    let schema = schema().await;
    let deadline = Duration::from_secs(4);
    let store = options_at(schema.url(), &schema).deadline(deadline).open().await.unwrap();
    let template = template();
    let keyed = || {
        let mut task = task(&template);
        task.idempotency_key = Some("order-1".to_owned());
        task
    };
    let mut other = Other::at(&schema).await;
    other.run("BEGIN".to_owned()).await;
    store.create_in(&mut other.session, vec![keyed()]).await.unwrap();
    // What is asked for at once is stored with one statement.
    let plain = || store.create(vec![task(&template)], None);
    let (before, refused, after) =
        tokio::join!(plain(), store.create(vec![keyed()], None), plain());
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    for created in [before, after] {
        assert!(matches!(created.unwrap()[..], [Created::New { .. }]));
    }
    // Nor does the server go on waiting for what nobody wants any more.
    assert_eq!(other.waiting().await, 0);
    other.run("COMMIT".to_owned()).await;
    let known = store.create(vec![keyed()], None).await.unwrap();
    assert!(matches!(known[..], [Created::Existing { .. }]));
}
