//! Whoever waits for work hears of it, from its own process and from others, also while the
//! connection that listens dies again and again.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fixture::process::{self, Process};
use fixture::{
    DEADLINE, HOUR, claim, commit, completed, connect, living_worker, named_template, number, open,
    options_at, request, schema, settle, task, template,
};
use serde_json::json;
use tasker_core::store::{Applied, Assumption, NewOffer, Route, StateStore, TaskChange};
use tasker_core::{
    StepContext, StepIndex, StepTemplate, TaskRequest, TaskState, TaskTemplate, Tasker, WorkerId,
    Workflow, step_fn,
};
use tasker_postgres::PostgresStore;
use tasker_postgres_kit::{Proxy, Server};

/// Far longer than a hint takes on a machine whose disk stalls, and shorter than anything that would
/// make up for a lost one: a poll, or the next question whether the connection still stands.
const SOON: Duration = Duration::from_secs(20);

/// Waits for hints alone until a claim brings something.
async fn hears_of(store: &PostgresStore, worker: WorkerId, template: &TaskTemplate) {
    let hears = async {
        while claim(store, request(worker, template, 9)).await.tasks.is_empty() {
            store.wait_for_work(worker, HOUR).await;
        }
    };
    assert!(tokio::time::timeout(SOON, hears).await.is_ok(), "no hint came");
}

/// Claims in vain until that is known to everybody, and until hints of others can be heard.
async fn idles(store: &PostgresStore, worker: WorkerId, template: &TaskTemplate) {
    let quiet = Duration::from_millis(1_500);
    loop {
        assert!(claim(store, request(worker, template, 9)).await.tasks.is_empty());
        let wait = store.wait_for_work(worker, HOUR);
        // While it cannot hear it polls at least once a second.
        if tokio::time::timeout(quiet, wait).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn process_that_submits_when_told() {
    let Some(asked) = process::asked() else { return };
    let mut heard = process::heard();
    let text = |key: &str| asked[key].as_str().unwrap().to_owned();
    let store = PostgresStore::options(text("url")).schema(text("schema")).open().await.unwrap();
    process::say("ready");
    while heard.recv().await.is_some() {
        store.create(vec![task(&template())], None).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_worker_hears_what_another_process_submits() {
    let schema = schema().await;
    let store = open(&schema).await;
    let job = json!({ "url": schema.url(), "schema": schema.name() });
    let mut process = Process::start("process_that_submits_when_told", &job);
    process.says("ready").await;
    let (template, worker) = (template(), living_worker(&store).await);
    idles(&store, worker, &template).await;
    for _ in 0..20 {
        process.tell("submit");
        hears_of(&store, worker, &template).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_of_one_store_each_hear_of_what_is_theirs() {
    let schema = schema().await;
    let (store, other) = (open(&schema).await, open(&schema).await);
    let templates = [named_template("first"), named_template("second")];
    let workers = [living_worker(&store).await, living_worker(&store).await];
    for (worker, template) in workers.iter().zip(&templates) {
        idles(&store, *worker, template).await;
    }
    for round in 0..40 {
        // From this process, from another one, to one of them and to both.
        let from = if round % 2 == 0 { &store } else { &other };
        let [first, second] = &templates;
        let tasks = match round % 3 {
            0 => vec![task(first)],
            1 => vec![task(second)],
            _ => vec![task(first), task(second)],
        };
        let of = |template: &Arc<_>| tasks.iter().any(|task| Arc::ptr_eq(&task.template, template));
        let (to_first, to_second) = (of(first), of(second));
        let submits = async { from.create(tasks.clone(), None).await.unwrap() };
        let first = async {
            if to_first {
                hears_of(&store, workers[0], first).await;
            }
        };
        let second = async {
            if to_second {
                hears_of(&store, workers[1], second).await;
            }
        };
        tokio::join!(submits, first, second);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_took_the_last_of_much_hears_of_more() {
    let schema = schema().await;
    let (store, other) = (open(&schema).await, open(&schema).await);
    let (template, worker) = (template(), living_worker(&store).await);
    idles(&store, worker, &template).await;
    let three = vec![task(&template), task(&template), task(&template)];
    other.create(three, None).await.unwrap();
    let busy = claim(&store, request(worker, &template, 2)).await;
    assert_eq!((busy.tasks.len(), busy.next_in), (2, Some(Duration::ZERO)));
    // It found something, but less than it has room for: from now on it waits.
    let last = claim(&store, request(worker, &template, 9)).await;
    assert_eq!(last.tasks.len(), 1);
    other.create(vec![task(&template)], None).await.unwrap();
    let told = tokio::time::timeout(SOON, store.wait_for_work(worker, HOUR)).await;
    assert!(told.is_ok(), "nobody knows that it waits");
    hears_of(&store, worker, &template).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_could_not_say_that_it_waits_says_so_later() {
    let schema = schema().await;
    let other = open(&schema).await;
    let proxy = Proxy::to(schema.url()).await.unwrap();
    let url = proxy.url(schema.url()).unwrap();
    let store = options_at(&url, &schema).open().await.unwrap();
    let (template, worker) = (template(), living_worker(&store).await);
    // The first claim in vain notes that the worker waits: that is cut off before it is done.
    let network = Arc::new(proxy);
    let cuts = Arc::clone(&network);
    _ = network.swallow_reply(1, move |sql| {
        if sql.contains("SET waiting") {
            cuts.freeze();
        }
        false
    });
    store.claim(request(worker, &template, 1)).await.unwrap_err();
    _ = network.swallow_reply(1, |_| false);
    network.cut().await;
    network.thaw();
    // What the frozen connection had to say was never delivered.
    let noted = "SELECT count(*) FROM {}.worker WHERE waiting";
    let mut database = connect(schema.url()).await;
    assert_eq!(number(&mut database, schema.name(), noted).await, 0);
    idles(&store, worker, &template).await;
    other.create(vec![task(&template)], None).await.unwrap();
    let told = tokio::time::timeout(SOON, store.wait_for_work(worker, HOUR)).await;
    assert!(told.is_ok(), "nobody knows that it waits");
    hears_of(&store, worker, &template).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_has_its_hands_full_hears_of_a_step_that_another_one_settled() {
    let schema = schema().await;
    let (store, other) = (open(&schema).await, open(&schema).await);
    let (template, new) = (template(), task(&template()));
    let (owner, helper) = (living_worker(&store).await, living_worker(&other).await);
    let id = new.id;
    store.create(vec![new, task(&template)], Some(owner)).await.unwrap();
    let (step, seq, route) = (StepIndex(0), 1, Route::of(&template));
    let offer = NewOffer { step, seq, route, needs: Vec::new() };
    let offers =
        TaskChange { rows: Vec::new(), offers: vec![offer], ..settle(id, 1, completed(0, 1)) };
    assert_eq!(commit(&store, owner, vec![offers]).await, [Applied::Yes]);
    assert_eq!(claim(&other, request(helper, &template, 1)).await.offers.len(), 1);
    // It asks for nothing, as long as it cannot be told of anything.
    let quiet = Duration::from_millis(1_500);
    loop {
        assert!(claim(&store, request(owner, &template, 0)).await.news.is_empty());
        let wait = store.wait_for_work(owner, HOUR);
        if tokio::time::timeout(quiet, wait).await.is_err() {
            break;
        }
    }
    let assumes = Assumption::OfferHeld { step, seq };
    let settled = TaskChange { assumes, ..settle(id, 1, completed(0, seq)) };
    assert_eq!(commit(&other, helper, vec![settled]).await, [Applied::Yes]);
    let told = tokio::time::timeout(SOON, store.wait_for_work(owner, HOUR)).await;
    assert!(told.is_ok(), "nobody told it");
    assert_eq!(claim(&store, request(owner, &template, 0)).await.news.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_went_silent_is_noticed() {
    let schema = schema().await;
    let proxy = Proxy::to(schema.url()).await.unwrap();
    let url = proxy.url(schema.url()).unwrap();
    let options = options_at(schema.url(), &schema).listen_url(url);
    let (store, other) = (options.open().await.unwrap(), open(&schema).await);
    let (template, worker) = (template(), living_worker(&store).await);
    idles(&store, worker, &template).await;
    proxy.freeze();
    other.create(vec![task(&template)], None).await.unwrap();
    // It polls as soon as it knows that it hears nothing.
    let told = tokio::time::timeout(DEADLINE, store.wait_for_work(worker, HOUR)).await;
    assert!(told.is_ok(), "it still believes that nothing happens");
    assert_eq!(claim(&store, request(worker, &template, 1)).await.tasks.len(), 1);
    // And it hears again once the network is back, although the old connection never ends.
    proxy.thaw();
    idles(&store, worker, &template).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_is_picked_up_although_the_connection_that_listens_dies_every_second() {
    const POLL: Duration = Duration::from_secs(2);
    // A database of its own, so that nobody else's sessions are ended.
    let server = Server::shared().await.unwrap();
    let (database, schema) = (server.database().await.unwrap(), server.schema());
    let template = TaskTemplate::builder("order").step(StepTemplate::new("charge"));
    let workflow = Workflow::new(template.build().unwrap())
        .step("charge", step_fn(|_: StepContext| async { Ok(()) }));
    let working = options_at(database.url(), &schema).open().await.unwrap();
    let submitting = options_at(database.url(), &schema).open().await.unwrap();
    let works = Tasker::builder(working).register(workflow.clone()).build().unwrap();
    let submits = Tasker::builder(submitting).register(workflow).build().unwrap();
    let worker = works.worker().poll(POLL).start();

    let mut killer = connect(database.url()).await;
    let kills = async {
        let kill = "
            SELECT count(pg_terminate_backend(pid))
            FROM pg_stat_activity
            WHERE datname = current_database() AND query LIKE 'LISTEN%'";
        let (mut killed, mut every) = (0, tokio::time::interval(Duration::from_secs(1)));
        for _ in 0..10 {
            every.tick().await;
            killed += number(&mut killer, "", kill).await;
        }
        killed
    };
    let (longest, ended) = (Cell::new(Duration::ZERO), Cell::new(0));
    let orders = async {
        for number in 0.. {
            let submitted = Instant::now();
            let task = submits.submit(TaskRequest::new("order", &number).unwrap()).await.unwrap();
            // The worker's process hears of the end at once: it is its own.
            let status = works.wait(task.id, DEADLINE).await.unwrap();
            assert_eq!(status.state, TaskState::Complete);
            longest.set(longest.get().max(submitted.elapsed()));
            ended.set(number);
        }
    };
    let killed = tokio::select! {
        killed = kills => killed,
        () = orders => unreachable!(),
    };
    let (longest, ended) = (longest.get(), ended.get());
    println!("{killed} connections killed, {ended} tasks, the slowest took {longest:?}");
    assert!(killed >= 8, "only {killed} connections listened");
    assert!(ended > 10, "only {ended} tasks ended");
    assert!(longest < POLL + SOON, "{longest:?}");
    worker.shutdown(SOON).await;
}
