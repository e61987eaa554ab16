//! That no statement reads more of a table than it has to, whatever the tables were like when it
//! was planned.

#![allow(clippy::unwrap_used)]

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};
use tasker_postgres_kit::Server;

use crate::PostgresOptions;
use crate::open::SETTINGS;
use crate::statements::{Statements, quoted};

/// Statements without a plan, and those that are seldom run and read small tables as a whole.
const EXEMPT: [&str; 3] = ["begin", "begin_step", "prune"];

/// Tables that have at most some hundred living rows.
const SMALL: [&str; 2] = ["worker", "template"];

/// What the tables were like when a connection planned its statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tables {
    New,
    EmptyAndVacuumed,
    Tiny,
    Large,
}

async fn fill(connection: &mut PgConnection, tables: Tables) {
    let rows = match tables {
        Tables::New => return,
        Tables::EmptyAndVacuumed => 0,
        Tables::Tiny => 10,
        Tables::Large => 10_000,
    };
    let fill = format!(
        "INSERT INTO template (fingerprint, namespace, name, task_type, body)
         VALUES ('\\x00', 'a', 'b', 'a/b@1.0.0', '{{}}');
         INSERT INTO worker (id, name, expires_at, spare, running)
         VALUES (gen_random_uuid(), 'w', now(), 1, '[]');
         INSERT INTO task
         SELECT gen_random_uuid(), 1, 'pending', false, 0, 0,
             CASE WHEN nr % 20 = 0 THEN (SELECT id FROM worker) END,
             null, now(), now(), null, '{{}}'
         FROM generate_series(1, {rows}) AS nr;
         INSERT INTO queue SELECT 'a/b@1.0.0', 0, wake_at, id FROM task WHERE owner IS NULL;
         INSERT INTO idempotency SELECT 'a', 'b', id::text, id FROM task;
         INSERT INTO document
         SELECT 'alarm', id::text, 1, 'set', now(), 'null', now(), now() FROM task;
         INSERT INTO document
         SELECT 'escalation', id::text, 1, 'open', null, 'null', now(), now() FROM task;
         INSERT INTO document
         SELECT 'system', nr::text, 1, 'up', null, 'null', now(), now()
         FROM generate_series(1, least({rows}, 10)) AS nr;
         INSERT INTO news (worker, task) SELECT (SELECT id FROM worker), id FROM task;
         INSERT INTO offer SELECT id, 0, 1, 'a/b@1.0.0', '{{}}', now() FROM task;
         INSERT INTO history
         SELECT id, step, 1, now(), null, null, 1, 1, 'completed', 'null', null
         FROM task, generate_series(0, 4) AS step"
    );
    sqlx::raw_sql(AssertSqlSafe(fill)).execute(&mut *connection).await.unwrap();
    for table in ["task", "queue", "idempotency", "news", "offer", "history", "worker", "document"]
    {
        let vacuum = format!("VACUUM ANALYZE {table}");
        sqlx::raw_sql(AssertSqlSafe(vacuum)).execute(&mut *connection).await.unwrap();
    }
}

/// The plan of a statement for any parameters.
async fn plan(connection: &mut PgConnection, text: &str) -> Vec<String> {
    let numbers = text.split('$').skip(1).filter_map(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<usize>().ok()
    });
    let nulls = vec!["NULL"; numbers.max().unwrap_or(0)];
    let arguments =
        if nulls.is_empty() { String::new() } else { format!("({})", nulls.join(", ")) };
    let explain =
        format!("PREPARE planned AS {text}; EXPLAIN (COSTS OFF) EXECUTE planned{arguments}");
    let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut *connection).await.unwrap();
    sqlx::raw_sql("DEALLOCATE planned").execute(connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// The lines of a plan that read a whole table or index.
fn whole_reads(plan: &[String]) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, line) in plan.iter().enumerate() {
        let Some((scan, table)) = line.split_once(" on ") else { continue };
        let table = table.split_whitespace().next().unwrap_or_default();
        let reads = scan.contains("Seq Scan") || scan.contains("Index");
        let bounded = plan.get(at + 1).is_some_and(|next| next.contains("Index Cond"));
        let small = SMALL.iter().any(|small| table.starts_with(small));
        if reads && !bounded && !small {
            found.push(line.trim());
        }
    }
    found
}

#[tokio::test]
async fn no_statement_reads_a_whole_table() {
    for tables in [Tables::New, Tables::EmptyAndVacuumed, Tables::Tiny, Tables::Large] {
        let schema = Server::shared().await.unwrap().schema();
        let options = PostgresOptions::new(schema.url()).schema(schema.name());
        options.migrate_only().await.unwrap();
        let mut connection = PgConnection::connect(schema.url()).await.unwrap();
        let path = format!("SET search_path = {}", quoted(schema.name()));
        sqlx::raw_sql(AssertSqlSafe(path)).execute(&mut connection).await.unwrap();
        fill(&mut connection, tables).await;
        sqlx::raw_sql(SETTINGS).execute(&mut connection).await.unwrap();
        for (name, text) in Statements::new(schema.name()).all() {
            if EXEMPT.contains(&name) {
                continue;
            }
            let plan = plan(&mut connection, text).await;
            let whole = whole_reads(&plan);
            assert!(whole.is_empty(), "{tables:?}, {name}: {whole:?}\n{}", plan.join("\n"));
        }
    }
}
