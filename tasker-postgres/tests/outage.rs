//! A server that dies under load, again and again.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fixture::orders::{self, Ledger, work_at};
use fixture::process::Process;
use fixture::{DEADLINE, Dice, eventually};
use tasker_core::{SubmitError, TaskId, TaskState, Tasker};
use tasker_postgres::PostgresStore;
use tasker_postgres_kit::{Server, Settings};

const CRASHES: usize = 5;
const SUBMITTERS: usize = 3;

#[tokio::test]
async fn process_that_works_until_it_is_killed() {
    orders::work_if_asked().await;
}

/// What customers were told.
#[derive(Default)]
struct Customers {
    acknowledged: Mutex<HashSet<TaskId>>,
    gone: AtomicBool,
}

impl Customers {
    /// Places orders until it is time to go, each until it is acknowledged.
    async fn order(&self, tasker: &Tasker, first: usize) {
        for number in (first..).step_by(SUBMITTERS) {
            loop {
                match tasker.submit(orders::order(number)).await {
                    Ok(receipt) => {
                        let new = self.acknowledged.lock().unwrap().insert(receipt.id);
                        assert!(new, "two orders are one task");
                        break;
                    }
                    // The same order again: it may have been stored or not.
                    Err(SubmitError::Store(_)) => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            if self.gone.load(Ordering::Relaxed) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_five_crashes_of_the_server_and_so_do_workers() {
    let mut server = Server::start(Settings::default()).await.unwrap();
    let url = server.url("postgres");
    let folder = tempfile::tempdir().unwrap();
    let latency = Duration::from_millis(20);
    let workflow = orders::workflow(folder.path(), latency);
    let store = PostgresStore::open(&url).await.unwrap();
    let tasker = Tasker::builder(store).register(workflow).build().unwrap();
    let job = work_at((&url, "tasker"), folder.path(), latency, Duration::from_secs(10));
    let mut workers: [Process; 2] =
        std::array::from_fn(|_| Process::start("process_that_works_until_it_is_killed", &job));
    for worker in &mut workers {
        worker.says("working").await;
    }

    let customers = Customers::default();
    let mut dice = Dice::new();
    let crashes = async {
        for crash in 1..=CRASHES {
            let enough = customers.count() + 100 + dice.below(100);
            eventually("orders are taken", || async { customers.count() >= enough }).await;
            server.crash().await.unwrap();
            server.start_again().await.unwrap();
            for worker in &mut workers {
                assert!(worker.ended().is_none(), "a worker ended with crash {crash}");
            }
        }
        customers.gone.store(true, Ordering::Relaxed);
    };
    let order = |first| customers.order(&tasker, first);
    tokio::join!(crashes, order(0), order(1), order(2));

    let acknowledged = customers.acknowledged.lock().unwrap().clone();
    for task in &acknowledged {
        let status = tasker.wait(*task, DEADLINE).await.unwrap();
        assert_eq!(status.state, TaskState::Complete, "{status:?}");
        assert!(status.steps.iter().all(|step| step.attempts == 1));
    }
    for worker in &mut workers {
        assert!(worker.ended().is_none());
    }
    let charges = Ledger(folder.path().to_owned()).charges();
    assert!(acknowledged.iter().all(|task| charges.get(&task.to_string()) == Some(&1)));
    assert_eq!(charges.len(), acknowledged.len(), "somebody paid for nothing");
}
