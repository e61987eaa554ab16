//! Callers that stop waiting, at any await, on a store with one connection.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fixture::{
    DEADLINE, Dice, HOUR, beat, completed, connect, eventually, living_worker, number, options_at,
    request, settle, task, template,
};
use tasker_core::history::Author;
use tasker_core::store::{StateStore, TaskQuery, Then};
use tasker_core::{
    Operator, StepContext, TaskRequest, TaskState, Tasker, WorkerId, Workflow, step_fn,
};
use tasker_postgres_kit::Server;

/// Polls a future so often and drops it; true if it ended before that.
async fn poll_and_drop(future: impl Future, polls: usize) -> bool {
    let mut future = pin!(future);
    for _ in 0..polls {
        let once =
            std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready()));
        if once.await {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

const DROPS: usize = 3_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_thousand_dropped_calls_leave_no_transaction_open() {
    // A database of its own, so that its sessions can be told from others.
    let database = Server::shared().await.unwrap().database().await.unwrap();
    let schema = Server::shared().await.unwrap().schema();
    let options = options_at(database.url(), &schema).connections(1);
    let store = Arc::new(options.clone().open().await.unwrap());
    let workflow = Workflow::new(template())
        .step("reserve", step_fn(|_: StepContext| async { Ok(()) }))
        .step("charge", step_fn(|_: StepContext| async { Ok(()) }));
    let tasker = Tasker::builder_on(store.clone()).register(workflow).build().unwrap();
    let mut observer = connect(database.url()).await;
    let open = "
        SELECT count(*)
        FROM pg_stat_activity
        WHERE datname = current_database() AND state LIKE 'idle in transaction%'";

    let template = template();
    let mut worker = living_worker(&*store).await;
    let mut known = task(&template);
    store.create(vec![known.clone()], Some(worker)).await.unwrap();
    let (mut dice, mut dropped) = (Dice::new(), 0);
    let mut rounds = 0;
    while dropped < DROPS {
        // Few polls are likelier: most of what a call awaits comes early.
        let most = [4, 400, 10_000][dice.below(3)];
        let polls = 1 + dice.below(most);
        let author = Author::Worker(worker);
        let mut released = settle(known.id, 1, completed(0, 1));
        released.then = Then::End { state: TaskState::Error };
        let mut claiming = request(worker, &template, 2);
        claiming.holding = Some(Vec::new());
        let ended = match dice.below(12) {
            0 => poll_and_drop(store.create(vec![task(&template)], None), polls).await,
            1 => poll_and_drop(store.create(vec![task(&template)], Some(worker)), polls).await,
            2 => poll_and_drop(store.claim(claiming), polls).await,
            3 => poll_and_drop(store.commit(&author, vec![released]), polls).await,
            4 => {
                // Twice the same task: a transaction of several statements.
                let twice = vec![settle(known.id, 1, completed(0, 1)), released];
                poll_and_drop(store.commit(&author, twice), polls).await
            }
            5 => poll_and_drop(store.renew(beat(worker, Some(HOUR))), polls).await,
            6 => poll_and_drop(store.renew(beat(WorkerId::new(), None)), polls).await,
            7 => {
                let short_lived = beat(WorkerId::new(), Some(Duration::ZERO));
                poll_and_drop(store.renew(short_lived), polls).await;
                poll_and_drop(store.take_over(4), polls).await
            }
            8 => poll_and_drop(store.load(known.id), polls).await,
            9 => poll_and_drop(store.find(TaskQuery::default()), polls).await,
            10 => {
                let submitted = tasker.submit(TaskRequest::new("order", &rounds).unwrap());
                poll_and_drop(submitted, polls).await
            }
            _ => {
                let operator = Operator::new("anna", "it was dropped");
                poll_and_drop(tasker.cancel(known.id, &operator), polls).await
            }
        };
        dropped += usize::from(!ended);
        rounds += 1;
        if rounds % 100 == 0 {
            // Behind everything that was begun: the one connection serves in turn.
            assert!(store.load(known.id).await.unwrap().is_some());
            eventually("no session is idle in a transaction", || async {
                number(&mut connect(database.url()).await, "", open).await == 0
            })
            .await;
            worker = living_worker(&*store).await;
            known = task(&template);
            store.create(vec![known.clone()], Some(worker)).await.unwrap();
        }
        if rounds % 50 == 0 {
            poll_and_drop(options.clone().open(), polls).await;
            poll_and_drop(options.clone().migrate_only(), polls).await;
        }
    }
    println!("{dropped} of {rounds} calls were dropped");

    let running = tasker.worker().start();
    let receipt = tasker.submit(TaskRequest::new("order", &rounds).unwrap()).await.unwrap();
    let status = tasker.wait(receipt.id, DEADLINE).await.unwrap();
    assert_eq!(status.state, TaskState::Complete);
    running.shutdown(Duration::from_secs(5)).await;
    poll_and_drop(store.close(), 1).await;
    store.close().await;
    assert_eq!(number(&mut observer, "", open).await, 0);
}
