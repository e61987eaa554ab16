//! What a person with psql reads: the views, and that everything has a comment.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, query_as, query_scalar};
use tasker_core::{
    StepContext, StepError, StepTemplate, TaskRequest, TaskTemplate, Tasker, Workflow, step_fn,
};
use tasker_postgres::PostgresStore;
use tasker_postgres_kit::Server;

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_views_show_where_a_task_and_each_of_its_steps_stand() {
    let schema = Server::shared().await.unwrap().schema();
    let name = schema.name();
    let store = PostgresStore::options(schema.url()).schema(name).open().await.unwrap();
    let template = TaskTemplate::builder("sell")
        .step(StepTemplate::new("hold"))
        .step(StepTemplate::new("pay").after("hold"))
        .step(StepTemplate::new("send").after("pay"));
    let workflow = Workflow::new(template.build().unwrap())
        .step("hold", step_fn(|_: StepContext| async { Ok("seat 7") }))
        .step(
            "pay",
            step_fn(|_: StepContext| async {
                Err::<(), _>(StepError::permanent("NO_FUNDS", "not enough funds"))
            }),
        )
        .step("send", step_fn(|_: StepContext| async { Ok(()) }));
    let tasker = Tasker::builder(store).register(workflow).build().unwrap();
    let worker = tasker.worker().start();
    let sold = tasker.submit(TaskRequest::new("sell", &"Hamlet").unwrap()).await.unwrap();
    tasker.wait(sold.id, LIMIT).await.unwrap();
    worker.shutdown(LIMIT).await;

    let mut connection = PgConnection::connect(schema.url()).await.unwrap();
    let tasks = format!("SELECT task_type, state, input #>> '{{}}' FROM {name}.task_status");
    let tasks: Vec<(String, String, String)> =
        query_as(AssertSqlSafe(tasks)).fetch_all(&mut connection).await.unwrap();
    let expected = ("default/sell@0.1.0".into(), "error".into(), "Hamlet".into());
    assert_eq!(tasks, [expected]);
    let steps = format!(
        "SELECT step, name, last_event, attempt, result #>> '{{}}' FROM {name}.step_status
         ORDER BY step"
    );
    type Step = (i64, String, Option<String>, Option<i32>, Option<String>);
    let steps: Vec<Step> = query_as(AssertSqlSafe(steps)).fetch_all(&mut connection).await.unwrap();
    let expected = [
        (0, "hold".into(), Some("completed".into()), Some(1), Some("seat 7".into())),
        (1, "pay".into(), Some("failed".into()), Some(1), None),
        (2, "send".into(), None, None, None),
    ];
    assert_eq!(steps, expected);
    let open = format!("SELECT state, detail IS NOT NULL FROM {name}.escalation");
    let open: Vec<(String, bool)> =
        query_as(AssertSqlSafe(open)).fetch_all(&mut connection).await.unwrap();
    assert_eq!(open, [("open".to_owned(), true)], "the step that failed for good");
}

#[tokio::test]
async fn every_table_view_and_column_says_what_it_is() {
    let schema = Server::shared().await.unwrap().schema();
    let store = PostgresStore::options(schema.url()).schema(schema.name()).open().await.unwrap();
    store.close().await;
    let mut connection = PgConnection::connect(schema.url()).await.unwrap();
    // sqlx's own table is nobody's to read.
    let silent = query_scalar::<_, String>(
        "SELECT class.relname || coalesce('.' || attribute.attname, '')
         FROM pg_class AS class
         LEFT JOIN pg_attribute AS attribute
             ON attribute.attrelid = class.oid AND attribute.attnum > 0
         WHERE class.relnamespace = $1::regnamespace
             AND class.relkind IN ('r', 'v')
             AND class.relname <> 'migration'
             AND (
                 obj_description(class.oid) IS NULL
                 OR (attribute.attnum IS NOT NULL
                     AND col_description(class.oid, attribute.attnum) IS NULL)
             )",
    );
    let silent = silent.bind(schema.name()).fetch_all(&mut connection).await.unwrap();
    assert!(silent.is_empty(), "{silent:?}");
}
