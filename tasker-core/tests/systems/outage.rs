//! What 200 orders do to a bank that is down, and when it is back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tasker_core::breaker::BreakerState;
use tasker_core::store::StateStore;
use tasker_core::{EventKind, MemoryStore, StepState, TaskState};
use tokio::time::Instant;

use crate::bank::{
    Bank, CALL, LONG, PROBES, charge, ends, failures, policy, submit, tasker, template, workflow,
};

/// Until all that is going to be parked is.
const A_WHILE: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn a_bank_that_is_down_is_left_alone_and_comes_back_to_few_calls() {
    let (store, bank) = (MemoryStore::new(), Bank::new());
    bank.set_down(true);
    let tasker = tasker(store.clone(), &bank);
    let worker = tasker.worker().start();
    let began = Instant::now();
    let ids = submit(&tasker, 200).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(bank.calls(), policy().minimum_calls as usize);
    let [status] = &tasker.systems().await.unwrap()[..] else { panic!("one system") };
    assert_eq!((status.name.as_str(), status.state), ("bank", BreakerState::Open));

    let outage = Duration::from_secs(600);
    tokio::time::sleep(outage).await;
    let probes = began.elapsed().as_millis().div_ceil(PROBES.as_millis()) as usize;
    let calls = bank.calls();
    assert!(calls <= policy().minimum_calls as usize + probes, "{calls} calls");
    assert!(calls >= probes / 2, "it was probed: {calls} calls");
    let (counted, spared) = failures(&store, &ids).await;
    // The failure that opens it is spared as well, and so are all of the probes.
    assert_eq!(counted, policy().minimum_calls as usize - 1);
    assert_eq!(spared, calls - counted);

    bank.set_down(false);
    let back = Instant::now();
    for status in ends(&tasker, &ids).await {
        assert_eq!(status.state, TaskState::Complete);
    }
    assert_eq!(bank.calls(), calls + 200, "nothing was called twice");
    let first = bank.load.lock().unwrap().iter().find(|(at, _)| *at >= back).unwrap().0;
    assert!(first - back <= PROBES + CALL, "{:?}", first - back);
    // Two probes, then three calls at once, and about twice as many with every round trip.
    let waves = bank.waves(first, CALL);
    assert_eq!(waves[..2], [1, 1]);
    assert!(waves[2] <= 3, "{waves:?}");
    for (before, after) in waves.iter().zip(&waves[1..]) {
        assert!(*after <= (2 * before).max(3), "{waves:?}");
    }
    assert!(waves.iter().any(|wave| *wave >= 32), "it grows: {waves:?}");
    assert!(waves.len() < 20, "it grows fast: {waves:?}");
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn two_processes_share_the_breaker() {
    let (store, bank) = (MemoryStore::new(), Bank::new());
    bank.set_down(true);
    let (one, other) = (tasker(store.clone(), &bank), tasker(store.clone(), &bank));
    let lease = Duration::from_secs(30);
    let workers = [one.worker().lease(lease).start(), other.worker().lease(lease).start()];
    let ids = submit(&one, 100).await;
    // The second hears of it with its next sign of life at the latest, and calls again only if it
    // does not know.
    tokio::time::sleep(lease / 3 + A_WHILE).await;
    let at_first = bank.calls();
    assert!(at_first < 10, "{at_first} calls");
    tokio::time::sleep(PROBES * 20).await;
    let probes = bank.calls() - at_first;
    assert!((19..=21).contains(&probes), "one probe in each interval: {probes}");

    bank.set_down(false);
    let began = Instant::now();
    for status in ends(&other, &ids).await {
        assert_eq!(status.state, TaskState::Complete);
    }
    assert!(began.elapsed() < PROBES + lease / 3 + A_WHILE, "{:?}", began.elapsed());
    for worker in workers {
        worker.shutdown(LONG).await;
    }
}

#[tokio::test(start_paused = true)]
async fn tasks_parked_by_a_process_that_is_gone_are_probed_and_released_by_another() {
    let (store, bank) = (MemoryStore::new(), Bank::new());
    bank.set_down(true);
    let gone = tasker(store.clone(), &bank);
    let worker = gone.worker().start();
    let ids = submit(&gone, 50).await;
    tokio::time::sleep(A_WHILE).await;
    worker.shutdown(LONG).await;
    bank.set_down(false);
    let other = tasker(store, &bank);
    let worker = other.worker().start();
    let began = Instant::now();
    for status in ends(&other, &ids).await {
        assert_eq!(status.state, TaskState::Complete);
    }
    assert!(began.elapsed() < PROBES + A_WHILE, "{:?}", began.elapsed());
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn declined_cards_never_open_the_breaker() {
    let (store, bank) = (MemoryStore::new(), Bank::new());
    bank.declines.store(true, Ordering::SeqCst);
    let tasker = tasker(store.clone(), &bank);
    let worker = tasker.worker().start();
    let ids = submit(&tasker, 200).await;
    for status in ends(&tasker, &ids).await {
        assert_eq!(status.state, TaskState::Error);
    }
    assert_eq!(tasker.systems().await.unwrap()[0].state, BreakerState::Closed);
    assert_eq!(bank.calls(), 200);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn the_event_of_a_breaker_is_told_and_needs_a_person_once() {
    use tasker_core::store::{Collection, DocumentQuery};
    let (store, bank) = (MemoryStore::new(), Bank::new());
    bank.set_down(true);
    let tasker = tasker(store.clone(), &bank);
    let mut events = tasker.events();
    let worker = tasker.worker().start();
    let ids = submit(&tasker, 20).await;
    tokio::time::sleep(PROBES * 4).await;
    bank.set_down(false);
    ends(&tasker, &ids).await;
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        match event.kind {
            EventKind::SystemOpened { system, reason } => told.push(format!("{system}: {reason}")),
            EventKind::SystemClosed { system } => told.push(format!("{system} is back")),
            _ => {}
        }
    }
    let opened = "bank: 5 of 5 recent calls failed, the last with DOWN (no answer)";
    assert_eq!(told, [opened, "bank is back"]);
    let (collection, state, after) = (Collection::Escalation, None, None);
    let query = DocumentQuery::List { collection, state, after, limit: 0 };
    let raised = store.read_documents(query).await.unwrap().found;
    assert_eq!(raised.len(), 1);
    assert!(raised[0].key.starts_with("system/bank/"), "{}", raised[0].key);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_fallback_does_not_wait_for_the_system_that_it_replaces() {
    use tasker_core::{OnFailure, StepContext, Tasker, step_fn};
    let (store, bank) = (MemoryStore::new(), Bank::new());
    bank.set_down(true);
    let step = charge().retry_limit(1).on_failure(OnFailure::Fallback("cash".to_owned()));
    let workflow = workflow(&bank, template(step));
    let workflow = workflow.step("cash", step_fn(|_: StepContext| async { Ok("cash") }));
    let tasker = Tasker::builder(store).register(workflow).build().unwrap();
    let worker = tasker.worker().start();
    let ids = submit(&tasker, 4).await;
    for status in ends(&tasker, &ids).await {
        assert!(status.degraded);
        assert_eq!(status.step("charge").unwrap().state, StepState::Complete);
    }
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_wide_task_is_parked_and_goes_on() {
    use tasker_core::{
        StepContext, StepTemplate, TaskRequest, TaskTemplate, Tasker, Workflow, step_fn,
    };
    let store = MemoryStore::new();
    let down = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let steps = (0..300).map(|step| {
        StepTemplate::new(format!("step {step}")).handler("call").dependent_system("bank")
    });
    let template = TaskTemplate::builder("wide").system("bank", policy());
    let template = steps.fold(template, |template, step| template.step(step)).build().unwrap();
    let process = || {
        let down = down.clone();
        let call = step_fn(move |_: StepContext| {
            let down = down.load(Ordering::SeqCst);
            async move {
                tokio::time::sleep(CALL).await;
                if down { Err(tasker_core::StepError::retryable("no answer")) } else { Ok(()) }
            }
        });
        let workflow = Workflow::new(template_of(&template)).step("call", call);
        Tasker::builder(store.clone()).register(workflow).build().unwrap()
    };
    let (one, other) = (process(), process());
    let workers = [one.worker().slots(16).start(), other.worker().slots(16).start()];
    let id = one.submit(TaskRequest::new("wide", &()).unwrap()).await.unwrap().id;
    tokio::time::sleep(PROBES * 3).await;
    down.store(false, Ordering::SeqCst);
    assert_eq!(one.wait(id, LONG).await.unwrap().state, TaskState::Complete);
    for worker in workers {
        worker.shutdown(LONG).await;
    }
}

fn template_of(template: &tasker_core::TaskTemplate) -> tasker_core::TaskTemplate {
    tasker_core::TaskTemplate::from_stored(template.body().as_str()).unwrap()
}
