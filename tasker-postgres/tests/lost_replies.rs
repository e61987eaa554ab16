//! What the server has done while its reply is lost: every caller asks again, and nothing happens
//! twice.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fixture::{
    DEADLINE, Dice, HOUR, beat, claim, commit, completed, connect, end, living_worker, number,
    open, options_at, request, schema, settle, task, template,
};
use tasker_core::history::{Author, Occurrence};
use tasker_core::store::{Applied, Created, Renewed, StateStore, StoreError, TaskChange, Then};
use tasker_core::{
    StepContext, StepTemplate, TaskRequest, TaskState, TaskTemplate, Tasker, WorkerId, Workflow,
    step_fn,
};
use tasker_postgres::PostgresStore;
use tasker_postgres_kit::{Proxy, Schema};

/// A store behind a proxy, and one that has its replies.
struct Stand {
    schema: Schema,
    proxy: Proxy,
    store: PostgresStore,
    direct: PostgresStore,
}

async fn stand() -> Stand {
    let schema = schema().await;
    let direct = open(&schema).await;
    let proxy = Proxy::to(schema.url()).await.unwrap();
    let url = proxy.url(schema.url()).unwrap();
    let store = options_at(&url, &schema).open().await.unwrap();
    Stand { schema, proxy, store, direct }
}

impl Stand {
    /// Makes a call whose effect stands and whose answer never comes.
    async fn lose<T>(&self, sql: &'static str, call: impl Future<Output = Result<T, StoreError>>) {
        let lost = self.proxy.swallow_reply(1, move |text| text.contains(sql));
        let answer = call.await;
        assert!(matches!(answer, Err(StoreError::Unavailable { .. })));
        assert!(lost.happened().await, "no {sql:?} was sent");
    }

    async fn count(&self, sql: &str) -> i64 {
        number(&mut connect(self.schema.url()).await, self.schema.name(), sql).await
    }
}

#[tokio::test]
async fn a_task_whose_creation_was_not_heard_of_exists_once() {
    let stand = stand().await;
    let mut new = task(&template());
    new.idempotency_key = Some("order-1".to_owned());
    stand.store.create(vec![task(&new.template)], None).await.unwrap();
    stand.lose("INSERT INTO \"", stand.store.create(vec![new.clone()], None)).await;
    let mut again = task(&new.template);
    again.idempotency_key = new.idempotency_key.clone();
    let created = stand.store.create(vec![again], None).await.unwrap();
    let existing = Created::Existing { id: new.id, input_digest: new.input_digest() };
    assert_eq!(created, [existing]);
    assert_eq!(stand.count("SELECT count(*) FROM {}.task").await, 2);
    assert_eq!(stand.count("SELECT count(*) FROM {}.queue").await, 2);
}

#[tokio::test]
async fn tasks_whose_claim_was_not_heard_of_are_handed_out_again() {
    let stand = stand().await;
    let template = template();
    let tasks = vec![task(&template), task(&template)];
    let mut ids = vec![tasks[0].id, tasks[1].id];
    stand.direct.create(tasks, None).await.unwrap();
    let worker = living_worker(&stand.store).await;
    let asked = request(worker, &template, 5);
    stand.lose("DELETE FROM", stand.store.claim(asked.clone())).await;
    let other = living_worker(&stand.direct).await;
    assert!(claim(&stand.direct, request(other, &template, 5)).await.tasks.is_empty());
    assert!(claim(&stand.store, asked.clone()).await.tasks.is_empty());
    let mut asks_again = asked;
    asks_again.holding = Some(vec![ids.remove(0)]);
    let work = claim(&stand.store, asks_again).await;
    assert_eq!(work.tasks.iter().map(|task| task.id).collect::<Vec<_>>(), ids);
    assert_eq!(work.tasks[0].version, 1);
}

#[tokio::test]
async fn what_was_committed_without_an_answer_conflicts_with_its_repetition() {
    let stand = stand().await;
    let template = template();
    let new = task(&template);
    let id = new.id;
    let worker = living_worker(&stand.store).await;
    stand.store.create(vec![new], Some(worker)).await.unwrap();
    let author = Author::Worker(worker);

    // By the one statement that applies what owners conclude.
    let settled = vec![settle(id, 1, completed(0, 1))];
    stand.lose("applied AS", stand.store.commit(&author, settled.clone())).await;
    assert_eq!(commit(&stand.store, worker, settled).await, [Applied::Conflict]);

    // By a transaction of several.
    let task = stand.store.load(id).await.unwrap().unwrap();
    let mut change = settle(id, task.version, completed(1, 1));
    change.then = Then::End { state: TaskState::Complete };
    let twice: Vec<TaskChange> = vec![settle(id, 7, completed(0, 2)), change];
    stand.lose("COMMIT", stand.store.commit(&author, twice.clone())).await;
    assert_eq!(commit(&stand.store, worker, twice).await, [Applied::Conflict; 2]);
    assert_eq!(commit(&stand.store, worker, vec![end(id, 1)]).await, [Applied::Conflict]);

    let task = stand.direct.load(id).await.unwrap().unwrap();
    assert_eq!((task.state, task.version, task.rows.len()), (TaskState::Complete, 2, 2));
}

#[tokio::test]
async fn a_worker_whose_registration_was_not_heard_of_lives_and_can_retire() {
    let stand = stand().await;
    let worker = WorkerId::new();
    let register = beat(worker, Some(HOUR));
    stand.lose("INSERT INTO", stand.store.renew(register.clone())).await;
    let renewed = stand.store.renew(register.clone()).await.unwrap();
    assert!(matches!(renewed, Renewed::Until { .. }));
    stand.lose("INSERT INTO", stand.store.renew(register.clone())).await;
    assert_eq!(stand.count("SELECT count(*) FROM {}.worker").await, 1);

    stand.lose("COMMIT", stand.store.renew(beat(worker, None))).await;
    assert_eq!(stand.store.renew(beat(worker, None)).await.unwrap(), Renewed::LeaseLost);
    assert_eq!(stand.store.renew(register).await.unwrap(), Renewed::LeaseLost);
}

#[tokio::test]
async fn a_worker_that_was_taken_over_without_an_answer_is_taken_over_once() {
    let stand = stand().await;
    let template = template();
    let new = task(&template);
    let id = new.id;
    let dead = WorkerId::new();
    stand.direct.renew(beat(dead, Some(Duration::ZERO))).await.unwrap();
    stand.direct.create(vec![new], Some(dead)).await.unwrap();
    stand.lose("COMMIT", stand.store.take_over(5)).await;
    assert_eq!(stand.store.take_over(5).await.unwrap(), []);

    let worker = living_worker(&stand.store).await;
    let work = claim(&stand.store, request(worker, &template, 5)).await;
    assert_eq!(work.tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [id]);
    let lost = |row: &&tasker_core::history::Recorded| matches!(row.transition.what, Occurrence::WorkerLost { worker } if worker == dead);
    assert_eq!(work.tasks[0].rows.iter().filter(lost).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_tasks_end_once_each_though_replies_are_lost_at_random() {
    const TASKS: usize = 200;
    let stand = stand().await;
    let calls: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let template = TaskTemplate::builder("diamond")
        .step(StepTemplate::new("split"))
        .step(StepTemplate::new("left").after("split"))
        .step(StepTemplate::new("right").after("split"))
        .step(StepTemplate::new("join").after_all(["left", "right"]));
    let template = Arc::new(template.build().unwrap());
    let mut workflow = Workflow::new(Arc::clone(&template));
    for step in template.steps() {
        let calls = Arc::clone(&calls);
        let run = step_fn(move |step: StepContext| {
            *calls.lock().unwrap().entry(step.idempotency_key().to_owned()).or_default() += 1;
            async { Ok(()) }
        });
        workflow = workflow.step(step.name.as_str(), run);
    }
    let Stand { schema, proxy, store, direct } = stand;
    let tasker = Tasker::builder(store).register(workflow).build().unwrap();
    let worker = tasker.worker().slots(8).start();

    let mut dice = Dice::new();
    let loses = async {
        loop {
            let nth = 1 + dice.below(25);
            proxy.swallow_reply(nth, |_| true).happened().await;
        }
    };
    let submits = async {
        let mut ids = Vec::new();
        for number in 0..TASKS {
            let request = || TaskRequest::new("diamond", &number).unwrap();
            let submit = || tasker.submit(request().idempotency_key(format!("{number}")));
            let receipt = loop {
                match submit().await {
                    Ok(receipt) => break receipt,
                    Err(error) => assert!(error.to_string().contains("not available"), "{error}"),
                }
            };
            ids.push(receipt.id);
        }
        ids
    };
    let ids = tokio::select! {
        ids = submits => ids,
        () = loses => unreachable!(),
    };
    // The last ones end without further ado, so that nobody loses patience.
    _ = proxy.swallow_reply(1, |_| false);
    let direct = Tasker::builder(direct).build().unwrap();
    for id in ids {
        let status = direct.wait(id, DEADLINE).await.unwrap();
        assert_eq!(status.state, TaskState::Complete);
        assert!(status.steps.iter().all(|step| step.attempts == 1), "{status:?}");
    }
    let calls = calls.lock().unwrap().clone();
    assert_eq!(calls.len(), TASKS * 4);
    // The lease lives all the while, so nothing is done twice either.
    assert!(calls.values().all(|calls| *calls == 1), "{calls:?}");
    let mut database = connect(schema.url()).await;
    for (sql, expected) in [
        ("SELECT count(*) FROM {}.task", TASKS),
        ("SELECT count(*) FROM {}.history", TASKS * 4),
        ("SELECT count(DISTINCT (task, step)) FROM {}.history WHERE kind = 'completed'", TASKS * 4),
    ] {
        assert_eq!(number(&mut database, schema.name(), sql).await, expected as i64, "{sql}");
    }
    worker.shutdown(Duration::from_secs(5)).await;
}
