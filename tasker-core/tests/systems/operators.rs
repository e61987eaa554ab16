//! What operators do about a system, and what they are told.

use std::time::Duration;

use tasker_core::breaker::BreakerState;
use tasker_core::{MemoryStore, Operator, StepCause, TaskCause, TaskState};
use tokio::time::Instant;

use crate::bank::{Bank, LONG, PROBES, ends, failures, policy, submit, tasker};

const A_WHILE: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn a_manual_trip_parks_until_it_is_reset() {
    let (store, bank) = (MemoryStore::new(), Bank::new());
    let (here, there) = (tasker(store.clone(), &bank), tasker(store.clone(), &bank));
    let lease = Duration::from_secs(30);
    let worker = here.worker().lease(lease).start();
    let ada = Operator::new("Ada", "the bank moves house");
    // By a process without a worker, so that this one hears of it with its sign of life.
    let status = there.trip_system("bank", &ada).await.unwrap();
    assert_eq!((status.state, status.next_probe), (BreakerState::Open, None));
    let again = there.trip_system("bank", &Operator::new("Bob", "me too")).await.unwrap();
    assert_eq!(again, status, "it is noted once");
    tokio::time::sleep(lease / 3 + Duration::from_secs(1)).await;
    let ids = submit(&here, 100).await;
    tokio::time::sleep(PROBES * 10).await;
    assert_eq!(bank.calls(), 0, "it is not probed either");

    let why = here.why(ids[0]).await.unwrap().unwrap();
    let TaskCause::WaitsForSystem(wait) = &why.cause else { panic!("{why:?}") };
    assert_eq!((wait.system.as_str(), wait.state), ("bank", BreakerState::Open));
    let since = status.since.unwrap();
    let reason = "opened by Ada: the bank moves house";
    let expected = format!(
        "the task waits for `bank`: its breaker is open since {since}, until an operator resets \
         it; {reason}"
    );
    assert_eq!(why.to_string(), expected);
    assert!(
        matches!(&why.steps[0].cause, StepCause::WaitsForSystem(wait) if wait.next_probe.is_none())
    );
    let page = here.stranded(Default::default()).await.unwrap();
    assert_eq!(page.stranded, [], "who waits for a system is not stranded");

    let began = Instant::now();
    let status = here.reset_system("bank", &Operator::new("Ada", "it has moved")).await.unwrap();
    assert_eq!(status.changes.len(), 2);
    assert_eq!(
        (status.changes[1].by.as_str(), status.changes[1].to),
        ("Ada", BreakerState::Closed)
    );
    for status in ends(&here, &ids).await {
        assert_eq!(status.state, TaskState::Complete);
    }
    assert!(began.elapsed() < A_WHILE, "workers of this process hear at once");
    assert_eq!(failures(&store, &ids).await, (0, 0));
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn why_tells_when_the_next_probe_is() {
    let (store, bank) = (MemoryStore::new(), Bank::new());
    bank.set_down(true);
    let tasker = tasker(store, &bank);
    let worker = tasker.worker().start();
    let ids = submit(&tasker, 20).await;
    tokio::time::sleep(A_WHILE).await;
    let status = tasker.systems().await.unwrap().remove(0);
    let (since, next) = (status.since.unwrap(), status.next_probe.unwrap());
    assert_eq!(next, since + PROBES);
    let why = tasker.why(ids[10]).await.unwrap().unwrap();
    let waits = format!(
        "waits for `bank`: its breaker is open since {since}, next probe at {next}; 5 of 5 recent \
         calls failed, the last with DOWN (no answer)"
    );
    assert_eq!(why.to_string(), format!("the task {waits}"));
    assert_eq!(why.steps[0].to_string(), format!("step `charge` {waits}"));
    bank.set_down(false);
    ends(&tasker, &ids).await;
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn why_tells_that_others_have_their_turn_first() {
    let (store, bank) = (MemoryStore::new(), Bank::new());
    let tasker = tasker(store, &bank);
    let worker = tasker.worker().start();
    let ids = submit(&tasker, 60).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(bank.calls(), policy().initial_calls as usize);
    let mut waiting = 0;
    for id in &ids {
        let why = tasker.why(*id).await.unwrap().unwrap();
        if let TaskCause::WaitsForSystem(wait) = &why.cause {
            assert_eq!(wait.state, BreakerState::Closed);
            let expected =
                "the task waits for `bank`: there are as many calls to it as it is known to bear";
            assert_eq!(why.to_string(), expected);
            waiting += 1;
        }
    }
    assert_eq!(waiting, 60 - policy().initial_calls);
    ends(&tasker, &ids).await;
    worker.shutdown(LONG).await;
}
