//! A worker that is stopped for longer than its lease, and comes back with a report.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::path::PathBuf;
use std::time::Duration;

use fixture::process::{self, Process};
use fixture::{DEADLINE, connect, eventually, number, open, schema};
use rustix::process::Signal;
use serde_json::json;
use tasker_core::{
    StepContext, StepTemplate, TaskRequest, TaskState, TaskTemplate, Tasker, Workflow, step_fn,
};
use tasker_postgres::PostgresStore;

/// A step that answers once a file is there, and says by whom.
fn workflow(name: String, gate: PathBuf) -> Workflow {
    let template = TaskTemplate::builder("order").step(StepTemplate::new("charge"));
    let charge = step_fn(move |step: StepContext| {
        let (name, gate) = (name.clone(), gate.clone());
        async move {
            process::say(&format!("charging at attempt {}", step.attempt()));
            // It holds its thread, so that nobody can take its report away.
            while !gate.exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(name)
        }
    });
    Workflow::new(template.build().unwrap()).step("charge", charge)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_that_works_until_it_is_killed() {
    let Some(asked) = process::asked() else { return };
    let mut heard = process::heard();
    let text = |key: &str| asked[key].as_str().unwrap().to_owned();
    let store = PostgresStore::options(text("url")).schema(text("schema")).open().await.unwrap();
    let workflow = workflow(text("name"), text("gate").into());
    let tasker = Tasker::builder(store).register(workflow).build().unwrap();
    let worker = tasker.worker().lease(Duration::from_secs(1)).start();
    process::say("working");
    while heard.recv().await.is_some() {
        process::say(&format!("rejected {}", worker.rejected_reports()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_late_report_of_a_stopped_worker_is_rejected_and_counted() {
    let schema = schema().await;
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let start = |name: &str| {
        let job = json!({
            "url": schema.url(),
            "schema": schema.name(),
            "name": name,
            "gate": gate,
        });
        Process::start("process_that_works_until_it_is_killed", &job)
    };
    let workflow = workflow("nobody".to_owned(), gate.clone());
    let tasker = Tasker::builder(open(&schema).await).register(workflow).build().unwrap();

    let mut first = start("first");
    first.says("working").await;
    let task = tasker.submit(TaskRequest::new("order", &1).unwrap()).await.unwrap().id;
    assert_eq!(first.says("charging").await, "at attempt 1");
    first.signal(Signal::STOP);

    // Nobody but its successor takes it over, and an attempt that was cut off does not count.
    let mut second = start("second");
    assert_eq!(second.says("charging").await, "at attempt 1");
    std::fs::write(&gate, "").unwrap();
    let status = tasker.wait(task, DEADLINE).await.unwrap();
    assert_eq!(status.state, TaskState::Complete);

    first.signal(Signal::CONT);
    for count in 0.. {
        assert!(count < 3_000, "its report is not counted");
        first.tell("how many?");
        if first.says("rejected").await == "1" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    second.tell("how many?");
    assert_eq!(second.says("rejected").await, "0");

    let status = tasker.status(task).await.unwrap().unwrap();
    assert_eq!(status.steps[0].result.as_ref().unwrap().as_str(), r#""second""#);
    assert_eq!(status.steps[0].attempts, 1);
    let mut database = connect(schema.url()).await;
    let completed = "SELECT count(*) FROM {}.history WHERE kind = 'completed'";
    assert_eq!(number(&mut database, schema.name(), completed).await, 1);

    // And it works again, under another name.
    let task = tasker.submit(TaskRequest::new("order", &2).unwrap()).await.unwrap().id;
    drop(second);
    eventually("the first one works on", || async {
        tasker.status(task).await.unwrap().unwrap().state == TaskState::Complete
    })
    .await;
    assert!(first.ended().is_none());
}
