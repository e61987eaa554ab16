//! Tasks that ended long ago are deleted, and nothing else is.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Row};
use tasker_core::history::Author;
use tasker_core::store::{
    Assumption, Collection, DocumentQuery, NewTask, StateStore, TaskChange, Then,
};
use tasker_core::{
    Action, Json, Operator, Priority, StepContext, StepError, StepTemplate, TaskId, TaskQuery,
    TaskRequest, TaskState, TaskTemplate, Tasker, Worker, Workflow, step_fn,
};
use tasker_postgres::PostgresStore;
use tasker_postgres_kit::{Database, Server};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const DEADLINE: Duration = Duration::from_secs(60);

struct Place {
    database: Database,
    pool: PgPool,
    store: Arc<PostgresStore>,
    tasker: Tasker,
}

impl Place {
    async fn new() -> Self {
        let database = Server::shared().await.unwrap().database().await.unwrap();
        let pool = PgPool::connect(database.url()).await.unwrap();
        let store = Arc::new(PostgresStore::open(database.url()).await.unwrap());
        let template = TaskTemplate::builder("task").step(StepTemplate::new("step"));
        let handler = step_fn(|step: StepContext| async move {
            if step.context::<bool>()? { Ok(()) } else { Err(StepError::permanent("NO", "no")) }
        });
        let workflow = Workflow::new(template.build().unwrap()).step("step", handler);
        let tasker = Tasker::builder_on(store.clone()).register(workflow).build().unwrap();
        Self { database, pool, store, tasker }
    }

    fn worker(&self) -> Worker {
        self.tasker.worker().start()
    }

    /// A task that completes or fails.
    async fn submit(&self, good: bool, key: &str) -> TaskId {
        let request = TaskRequest::new("task", &good).unwrap().idempotency_key(key);
        self.tasker.submit(request).await.unwrap().id
    }

    async fn ended(&self, good: bool, key: &str) -> TaskId {
        let task = self.submit(good, key).await;
        self.tasker.wait(task, DEADLINE).await.unwrap();
        task
    }

    /// Everything that has happened was a day ago.
    async fn a_day_passes(&self) {
        let ids = "CREATE OR REPLACE FUNCTION earlier(id uuid) RETURNS uuid LANGUAGE sql AS $$ \
                   SELECT (lpad(to_hex(('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint \
                   - 86400000), 12, '0') || right(replace(id::text, '-', ''), 20))::uuid $$";
        self.run(ids).await;
        for shift in [
            "UPDATE tasker.task SET id = earlier(id), ended_at = ended_at - interval '1 day'",
            "UPDATE tasker.history SET task = earlier(task)",
            "UPDATE tasker.idempotency SET task = earlier(task)",
            "UPDATE tasker.queue SET task = earlier(task)",
        ] {
            self.run(shift).await;
        }
    }

    async fn run(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&self.pool).await.unwrap();
    }

    async fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM tasker.{table}");
        sqlx::query(AssertSqlSafe(sql)).fetch_one(&self.pool).await.unwrap().get(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_long_ago_goes_with_all_that_is_known_of_it() {
    let place = Place::new().await;
    let worker = place.worker();
    for key in ["a", "b", "c"] {
        place.ended(true, key).await;
    }
    place.ended(false, "failed").await;
    worker.shutdown(DEADLINE).await;
    let cancelled = place.submit(true, "cancelled").await;
    place.tasker.cancel(cancelled, &Operator::new("ada", "no")).await.unwrap();
    place.submit(true, "waits").await;
    assert_eq!(place.store.delete_ended(HOUR, 2).await.unwrap(), 0, "all of it is young");
    place.a_day_passes().await;
    place.submit(true, "young").await;

    assert_eq!(place.store.delete_ended(2 * DAY, 2).await.unwrap(), 0);
    assert_eq!(place.store.delete_ended(HOUR, 2).await.unwrap(), 4);
    let left = (place.count("task").await, place.count("idempotency").await);
    assert_eq!(left, (3, 3), "the failed one, and two that wait");
    let orphans = "history WHERE task NOT IN (SELECT id FROM tasker.task)";
    assert_eq!(place.count(orphans).await, 0);
    assert_eq!(place.store.delete_failed(HOUR, 2).await.unwrap(), 1);
    assert_eq!(place.count("history").await, 0);

    // The rest goes on, and the keys are free.
    let worker = place.worker();
    assert_eq!(place.tasker.find(TaskQuery::default()).await.unwrap().len(), 2);
    place.ended(true, "a").await;
    worker.shutdown(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_somebody_retries_stays() {
    let place = Place::new().await;
    let worker = place.worker();
    place.ended(false, "failed").await;
    worker.shutdown(DEADLINE).await;
    place.a_day_passes().await;
    // Somebody has locked it, and makes it pending.
    let mut retry = place.pool.begin().await.unwrap();
    let change = "UPDATE tasker.task SET state = 'pending', ended_at = NULL";
    sqlx::query(change).execute(&mut *retry).await.unwrap();
    assert_eq!(place.store.delete_failed(HOUR, 2).await.unwrap(), 0, "and nobody waits for it");
    retry.commit().await.unwrap();
    assert_eq!(place.store.delete_failed(HOUR, 2).await.unwrap(), 0);
    assert_eq!((place.count("task").await, place.count("history").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_and_deletions_at_once_leave_whole_tasks() {
    const TASKS: usize = 60;
    let place = Place::new().await;
    let worker = place.worker();
    let keys = (0..TASKS).map(|number| number.to_string());
    for key in keys {
        place.ended(false, &key).await;
    }
    place.a_day_passes().await;
    let failed = place.tasker.find(TaskQuery::default()).await.unwrap();
    let retries = async {
        let mut retried = 0;
        for task in &failed {
            retried +=
                i64::from(place.tasker.retry(task.id, &Operator::new("ada", "")).await.is_ok());
        }
        retried
    };
    let deletions = async {
        let mut deleted = 0;
        for _ in 0..20 {
            deleted += place.store.delete_failed(HOUR, 1).await.unwrap();
        }
        deleted
    };
    let (retried, deleted) = tokio::join!(retries, deletions);
    let left = place.count("task").await;
    assert_eq!(left + i64::try_from(deleted).unwrap(), 60);
    assert!(retried <= left, "{retried} were retried, {left} are left");
    let orphans = "history WHERE task NOT IN (SELECT id FROM tasker.task)";
    assert_eq!(place.count(orphans).await, 0);
    worker.shutdown(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_keeps_for_a_time_deletes_by_itself() {
    let place = Place::new().await;
    let worker = place.worker();
    place.ended(true, "good").await;
    place.ended(false, "failed").await;
    worker.shutdown(DEADLINE).await;
    let age = Duration::from_secs(1);
    let options = PostgresStore::options(place.database.url()).keep_ended(age);
    let stores = [options.clone().open().await.unwrap(), options.open().await.unwrap()];
    let gone = async { while place.count("task").await > 1 {} };
    tokio::time::timeout(DEADLINE, gone).await.unwrap();
    let left = place.tasker.find(TaskQuery::default()).await.unwrap();
    assert_eq!(left[0].state, TaskState::Error);
    for store in stores {
        store.close().await;
    }
}

/// Many tasks that ended a day ago, every hundredth of them failed, and an hour's worth of others.
const MANY: &str = "
    INSERT INTO tasker.template (fingerprint, namespace, name, task_type, body)
    VALUES ('', '', '', '', '');
    CREATE TABLE made AS
    SELECT
        nr,
        (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7000'
            || lpad(to_hex(nr), 16, '0'))::uuid AS id,
        at
    FROM (
        SELECT nr, now() - interval '1 day' * (nr <= 100000)::int - interval '1 hour'
            + nr * interval '1 ms' AS at
        FROM generate_series(1, 110000) AS nr
    ) AS numbered;
    INSERT INTO tasker.task (id, template, state, degraded, priority, version, created_at, ended_at, input)
    SELECT id, 1, CASE WHEN nr % 100 = 0 THEN 'error' ELSE 'complete' END, false, 0, 2, at, at, '{}'
    FROM made;
    INSERT INTO tasker.history (task, step, seq, at, attempt, ran_for, kind)
    SELECT id, step, 1, at, 1, 0, 'completed' FROM made, generate_series(0, 2) AS step;
    INSERT INTO tasker.idempotency (namespace, name, key, task)
    SELECT '', '', nr::text, id FROM made;
    DROP TABLE made;
";

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_are_deleted_by_way_of_indexes() {
    let place = Place::new().await;
    place.run(MANY).await;
    for analysed in [false, true] {
        if analysed {
            place.run("ANALYZE tasker.task, tasker.history, tasker.idempotency").await;
        }
        for mode in ["force_generic_plan", "force_custom_plan"] {
            let plans = plans(&place, mode).await;
            for index in ["task_pkey", "history_pkey", "idempotency_by_task"] {
                assert!(plans.contains(index), "{mode}, {analysed}:\n{plans}");
            }
            assert!(!plans.contains("Seq Scan on task"), "{mode}, {analysed}:\n{plans}");
            assert!(!plans.contains("Seq Scan on history"), "{mode}, {analysed}:\n{plans}");
            assert!(!plans.contains("Seq Scan on idempotency"), "{mode}, {analysed}:\n{plans}");
        }
    }
    let age = 12 * HOUR;
    let (one, other) =
        tokio::join!(place.store.delete_ended(age, 1_000), place.store.delete_ended(age, 1_000));
    let rest = place.store.delete_ended(age, 1_000).await.unwrap();
    assert_eq!(one.unwrap() + other.unwrap() + rest, 99_000);
    assert_eq!(place.count("task").await, 11_000);
    assert_eq!(place.count("history").await, 33_000);
    assert_eq!(place.count("idempotency").await, 11_000);
    assert_eq!(place.store.delete_failed(age, 10_000).await.unwrap(), 1_000);
    assert!(place.store.load(TaskId::new()).await.unwrap().is_none());
}

/// How both statements would be executed.
async fn plans(place: &Place, mode: &str) -> String {
    let select = include_str!("../queries/select_ended.sql").replace("{schema}", "tasker");
    let delete = include_str!("../queries/delete_ended.sql").replace("{schema}", "tasker");
    let mut connection = place.pool.acquire().await.unwrap();
    let prepare = format!(
        "DISCARD PLANS; DEALLOCATE ALL; SET plan_cache_mode = {mode};
         PREPARE chosen (uuid, bigint, text[], int, int) AS {select};
         PREPARE deleted (uuid[], bigint, text[]) AS {delete}"
    );
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *connection).await.unwrap();
    let ids =
        "SELECT array_agg(id)::text FROM (SELECT id FROM tasker.task ORDER BY id LIMIT 500) AS a";
    let ids: String = sqlx::query(ids).fetch_one(&place.pool).await.unwrap().get(0);
    let mut plans = String::new();
    for explain in [
        "EXPLAIN EXECUTE chosen ('00000000-0000-0000-0000-000000000000', 43200000000, \
         '{complete,cancelled}', 5000, 500)"
            .to_owned(),
        format!("EXPLAIN EXECUTE deleted ('{ids}', 43200000000, '{{complete,cancelled}}')"),
    ] {
        let explain = AssertSqlSafe(explain);
        let rows = sqlx::raw_sql(explain).fetch_all(&mut *connection).await.unwrap();
        for row in rows {
            plans.push_str(row.get(0));
            plans.push('\n');
        }
    }
    connection.detach();
    plans
}

#[tokio::test]
async fn what_needs_nobody_any_more_goes_with_its_alarm() {
    let place = Place::new().await;
    let store = &place.store;
    let template = TaskTemplate::builder("task").deadline(HOUR).step(StepTemplate::new("step"));
    let template = Arc::new(template.build().unwrap());
    let states = TaskState::ALL.map(|state| (state, TaskId::new()));
    for (state, id) in states {
        let (template, context) = (Arc::clone(&template), Json::null());
        let (idempotency_key, delay, priority) = (None, Duration::ZERO, Priority::Normal);
        let new = NewTask { id, template, context, idempotency_key, delay, priority };
        store.create(vec![new], None).await.unwrap();
        let (assumes, rows, offers) = (Assumption::Unmoved { version: 0 }, Vec::new(), Vec::new());
        let then = Then::End { state };
        let change =
            TaskChange { task: id, assumes, rows, offers, then, degraded: None, review: false };
        store.commit(&Author::Operator("ada".to_owned()), vec![change]).await.unwrap();
    }
    let ended = [
        TaskState::Complete,
        TaskState::Cancelled,
        TaskState::Compensated,
        TaskState::ResolvedManually,
    ];
    let mut deleted = 0;
    while deleted < 4 {
        deleted += store.delete_ended(Duration::ZERO, 10).await.unwrap();
    }
    for (state, id) in states {
        let gone = ended.contains(&state);
        assert_eq!(store.load(id).await.unwrap().is_none(), gone, "{state}");
        let (collection, keys) = (Collection::Alarm, vec![id.to_string()]);
        let alarm = store.read_documents(DocumentQuery::Keys { collection, keys }).await.unwrap();
        assert_eq!(alarm.found.is_empty(), gone, "{state}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_resolved_goes_with_its_task_and_what_is_open_stays() {
    let place = Place::new().await;
    let worker = place.worker();
    let (closed, open) = (place.ended(false, "a").await, place.ended(false, "b").await);
    let closes = Operator::new("ada", "seen to");
    place.tasker.operate(closed, Action::Resolve, &closes).await.unwrap();
    worker.shutdown(DEADLINE).await;
    assert_eq!(place.count("document WHERE collection = 'escalation'").await, 2);
    let mut deleted = 0;
    while deleted < 2 {
        // What ended in this very millisecond is not older than nothing.
        deleted += place.store.delete_ended(Duration::ZERO, 10).await.unwrap();
        deleted += place.store.delete_failed(Duration::ZERO, 10).await.unwrap();
    }
    let left = format!("document WHERE collection = 'escalation' AND key LIKE '{open}/%'");
    assert_eq!(place.count(&left).await, 1);
    assert_eq!(place.count("document WHERE collection = 'escalation'").await, 1);
}
