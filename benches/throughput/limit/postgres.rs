//! What the machine does at most through PostgreSQL: bare SQL, with no engine around it.

use std::sync::Arc;
use std::time::Instant;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tasker::TaskId;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{LONG_ENOUGH, Limit};
use crate::postgres::Place;
use crate::{Failed, usage};

/// Rows in one transaction, as busy commits have.
const ROWS: usize = 100;

/// Connections that commits of a single row come from, besides one alone.
const MANY: usize = 32;

/// Connections that batches come from, as many as a busy worker uses.
const WRITERS: usize = 4;

/// Rows that each of them updates in turn.
const TASKS: usize = 5_000;

/// Rows as the engine's own: outcomes that are inserted, tasks that are updated.
const TABLES: &str = "
    CREATE SCHEMA {schema};
    CREATE TABLE {schema}.history (
        task uuid NOT NULL, step integer NOT NULL, seq integer NOT NULL, at timestamptz NOT NULL,
        worker uuid, kind text NOT NULL, result text, PRIMARY KEY (task, step, seq)
    );
    CREATE TABLE {schema}.task (
        id uuid NOT NULL PRIMARY KEY, version bigint NOT NULL, owner uuid, state text NOT NULL
    );";

const INSERT: &str = "
    INSERT INTO {schema}.history
    SELECT task, step, 1, now(), $3, 'completed', 'null'
    FROM unnest($1::uuid[], $2::integer[]) AS row (task, step)";

const UPDATE: &str = "
    UPDATE {schema}.task
    SET version = version + 1, owner = $2, state = 'in_progress'
    FROM unnest($1::uuid[]) AS row (id)
    WHERE task.id = row.id";

/// Commits of a row, then batches of inserted rows, then batches of updated ones.
pub(super) async fn measure(place: &Place) -> Result<Limit, Failed> {
    let schema = place.schema();
    let schema = schema.name();
    let tables = sqlx::raw_sql(AssertSqlSafe(statement(TABLES, schema)));
    tables.execute(&mut PgConnection::connect(&place.url).await?).await?;
    let alone = many(place, schema, 1, insert_single).await?;
    let together = many(place, schema, MANY, insert_single).await?;
    let (began, cpu) = (Instant::now(), usage::cpu_time());
    let inserted = many(place, schema, WRITERS, insert_batches).await?;
    let what = "insert the outcome of each step, a hundred in a transaction, four at a time";
    let cpu = usage::cpu_since(cpu);
    let mut limit = Limit::of(what, inserted.rows, began.elapsed(), cpu);
    limit.steps_per_second = inserted.per_second();
    limit.commits_per_second = Some(alone.per_second());
    limit.commits_of_many_per_second = Some(together.per_second());
    let updated = many(place, schema, WRITERS, update_batches).await?;
    limit.updates_per_second = Some(updated.per_second());
    crate::postgres::drop_schema(&place.url, schema).await?;
    Ok(limit)
}

fn statement(text: &str, schema: &str) -> String {
    text.replace("{schema}", schema)
}

#[derive(Clone, Copy, Default)]
struct Done {
    rows: usize,
    seconds: f64,
}

impl Done {
    fn per_second(self) -> f64 {
        self.rows as f64 / self.seconds
    }
}

/// Work on one connection, until it took long enough.
type Work<F> = fn(PgConnection, String) -> F;

/// The same from several connections at the same time.
async fn many<F>(
    place: &Place,
    schema: &str,
    connections: usize,
    work: Work<F>,
) -> Result<Done, Failed>
where
    F: Future<Output = Result<Done, Failed>> + Send + 'static,
{
    let mut all = JoinSet::new();
    for _ in 0..connections {
        let connection = PgConnection::connect(&place.url).await?;
        all.spawn(work(connection, schema.to_owned()));
    }
    let mut sum = Done::default();
    while let Some(done) = all.join_next().await {
        let done = done??;
        sum.rows += done.rows;
        sum.seconds = sum.seconds.max(done.seconds);
    }
    Ok(sum)
}

async fn insert_single(connection: PgConnection, schema: String) -> Result<Done, Failed> {
    insert(connection, schema, 1).await
}

async fn insert_batches(connection: PgConnection, schema: String) -> Result<Done, Failed> {
    insert(connection, schema, ROWS).await
}

async fn insert(
    mut connection: PgConnection,
    schema: String,
    batch: usize,
) -> Result<Done, Failed> {
    let text: Arc<str> = statement(INSERT, &schema).into();
    let worker = new_id();
    let (began, mut rows) = (Instant::now(), 0);
    while began.elapsed() < LONG_ENOUGH {
        let five_each: Vec<_> = (0..batch.div_ceil(5)).map(|_| new_id()).collect();
        let tasks: Vec<_> = (0..batch).map(|row| five_each[row / 5]).collect();
        let steps: Vec<_> = (0..batch).map(|row| (row % 5) as i32).collect();
        let insert = sqlx::query(AssertSqlSafe(text.clone())).bind(tasks).bind(steps).bind(worker);
        insert.execute(&mut connection).await?;
        rows += batch;
    }
    Ok(Done { rows, seconds: began.elapsed().as_secs_f64() })
}

async fn update_batches(mut connection: PgConnection, schema: String) -> Result<Done, Failed> {
    let fill = "INSERT INTO {schema}.task SELECT id, 0, NULL, 'pending' FROM unnest($1) AS r (id)";
    let tasks: Vec<_> = (0..TASKS).map(|_| new_id()).collect();
    let fill = sqlx::query(AssertSqlSafe(statement(fill, &schema))).bind(tasks.clone());
    fill.execute(&mut connection).await?;
    let text: Arc<str> = statement(UPDATE, &schema).into();
    let worker = new_id();
    let (began, mut rows) = (Instant::now(), 0);
    while began.elapsed() < LONG_ENOUGH {
        let first = rows % TASKS;
        let some = tasks[first..first + ROWS].to_vec();
        let update = sqlx::query(AssertSqlSafe(text.clone())).bind(some).bind(worker);
        update.execute(&mut connection).await?;
        rows += ROWS;
    }
    Ok(Done { rows, seconds: began.elapsed().as_secs_f64() })
}

fn new_id() -> Uuid {
    TaskId::new().as_uuid()
}
