use std::collections::BTreeSet;

use tasker_core::decide::MAX_DELIVERIES;
use tasker_core::store::{ClaimRequest, Heartbeat, Route};
use tasker_core::testing::{FaultyStore, Loss};
use tasker_core::{EscalationState, MemoryStore, RegisterError, WorkerId};

use super::*;

fn memory() -> Arc<dyn StateStore> {
    Arc::new(MemoryStore::new())
}

#[tokio::test(start_paused = true)]
async fn a_step_that_failed_for_good_is_told_once_to_every_sink() {
    let store = memory();
    let (chat, pager) = (Pager::new("chat", Mood::Well), Pager::new("pager", Mood::Well));
    let tasker = tasker(&store, &[&chat, &pager]);
    let worker = tasker.worker().start();
    let began = Instant::now();
    let id = submit(&tasker, "shop/order").await;
    pager.is_told(1).await;
    assert!(began.elapsed() < Duration::from_millis(100), "at once: {:?}", began.elapsed());
    tokio::time::sleep(LONG).await;
    worker.shutdown(LONG).await;

    for sink in [&chat, &pager] {
        let told = sink.told();
        assert_eq!(told.len(), 1);
        let (_, told) = &told[0];
        assert_eq!(
            told.to_string(),
            format!(
                "step `charge` of task {id} (`shop/order@0.1.0`) failed for good in attempt 1: the \
                 card was declined (CARD_DECLINED)"
            )
        );
    }
    let escalation = only(&tasker).await;
    assert_eq!(escalation.state, EscalationState::Open);
    assert!(escalation.deliveries.values().all(|it| it.delivered_at.is_some() && it.attempts == 1));
    let json = serde_json::to_value(&escalation).unwrap();
    assert_eq!(json["id"], escalation.key);
    assert_eq!((&json["kind"], &json["step"]), (&"step_failed".into(), &"charge".into()));
    assert_eq!(json["failure"]["code"], "CARD_DECLINED");
    assert!(!json.to_string().contains("a secret"), "{json}");
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_fails_is_told_again_and_no_other() {
    let store = memory();
    let (chat, pager) = (Pager::new("chat", Mood::Well), Pager::new("pager", Mood::Fails(14)));
    let tasker = tasker(&store, &[&chat, &pager]);
    let worker = tasker.worker().start();
    submit(&tasker, "shop/order").await;
    tokio::time::sleep(LONG).await;
    worker.shutdown(LONG).await;

    assert_eq!((chat.times(), pager.times()), (1, 15));
    let told = pager.told();
    let waits: Vec<_> = told.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(waits[0] < Duration::from_secs(2), "{waits:?}");
    assert!(waits[..11].is_sorted(), "they grow: {waits:?}");
    assert!(waits[13] <= Duration::from_secs(3601), "up to an hour: {waits:?}");
    let delivery = only(&tasker).await.deliveries["pager"].clone();
    assert_eq!((delivery.attempts, delivery.next_at), (15, None));
    assert_eq!(delivery.last_error.as_deref(), Some("the line is busy"));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_panics_or_hangs_has_failed() {
    for mood in [Mood::Panics(2), Mood::Hangs(2)] {
        let store = memory();
        let pager = Pager::new("pager", mood);
        let tasker = tasker(&store, &[&pager]);
        let worker = tasker.worker().start();
        submit(&tasker, "shop/order").await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(pager.times(), 3);
        assert!(only(&tasker).await.deliveries["pager"].delivered_at.is_some());
        worker.shutdown(LONG).await;
    }
}

/// The record and the delivery are apart: whatever call fails in between, it is delivered.
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_at_any_call_loses_no_escalation() {
    for loss in [Loss::OfCall, Loss::OfAnswer] {
        for call in 1..=16 {
            let store = FaultyStore::new(MemoryStore::new());
            store.fail_call(call, loss);
            let pager = Pager::new("pager", Mood::Well);
            let shared: Arc<dyn StateStore> = Arc::new(store.clone());
            let tasker = tasker(&shared, &[&pager]);
            let worker = tasker.worker().start();
            let request = || TaskRequest::new("shop/order", &"").unwrap().idempotency_key("one");
            while tasker.submit(request()).await.is_err() {}
            pager.is_told(1).await;
            tokio::time::sleep(CLAIM_OVER * 2).await;
            let scene = format!("call {call}, {loss:?}");
            assert_eq!(store.failures(), 1, "{scene}");
            // A second delivery is not needed: the failure is seen, not suffered.
            assert_eq!(pager.times(), 1, "{scene}");
            assert!(only(&tasker).await.deliveries["pager"].delivered_at.is_some(), "{scene}");
            worker.shutdown(LONG).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_worker_was_delivering_when_it_died_is_delivered_by_another() {
    let store = memory();
    let doomed_pager = Pager::new("pager", Mood::Hangs(1));
    let doomed = tasker(&store, &[&doomed_pager]).worker().start();
    let pager = Pager::new("pager", Mood::Well);
    let tasker = tasker(&store, &[&pager]);
    submit(&tasker, "shop/order").await;
    doomed_pager.is_told(1).await;
    drop(doomed);
    let died = Instant::now();
    let worker = tasker.worker().start();
    pager.is_told(1).await;
    assert!(died.elapsed() <= CLAIM_OVER, "{:?}", died.elapsed());
    assert_eq!(pager.told()[0].1.key, doomed_pager.told()[0].1.key, "the same delivery");
    tokio::time::sleep(LONG).await;
    assert_eq!(pager.times(), 1);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_good_order_ends_what_is_being_delivered() {
    let store = memory();
    let pager = Pager::new("pager", Mood::Hangs(1));
    let tasker = tasker(&store, &[&pager]);
    let worker = tasker.worker().start();
    submit(&tasker, "shop/order").await;
    pager.is_told(1).await;
    worker.shutdown(LONG).await;
    let delivery = only(&tasker).await.deliveries["pager"].clone();
    assert_eq!(delivery.last_error.as_deref(), Some("no answer within 30s"));
    tokio::time::sleep(LONG).await;
    assert_eq!(pager.times(), 1, "nobody is left to tell it");
    let worker = tasker.worker().start();
    pager.is_told(2).await;
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn several_workers_tell_it_once() {
    let store = memory();
    let pager = Pager::new("pager", Mood::Well);
    let taskers: Vec<_> = (0..4).map(|_| tasker(&store, &[&pager])).collect();
    let workers: Vec<_> = taskers.iter().map(|tasker| tasker.worker().start()).collect();
    let mut tasks = BTreeSet::new();
    for number in 0..200 {
        tasks.insert(submit(&taskers[number % 4], "shop/order").await);
    }
    pager.is_told(200).await;
    tokio::time::sleep(LONG).await;
    let told: BTreeSet<_> = pager.told().iter().filter_map(|(_, it)| it.incident.task()).collect();
    assert_eq!(told, tasks);
    assert!(pager.by_key().values().all(|times| *times == 1));
    for worker in workers {
        worker.shutdown(LONG).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_one_worker_lacks_is_told_by_one_that_has_it() {
    let store = memory();
    let (chat, pager) = (Pager::new("chat", Mood::Well), Pager::new("pager", Mood::Well));
    let with = tasker(&store, &[&pager]).worker().start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let tasker = tasker(&store, &[&chat]);
    let without = tasker.worker().start();
    for told in 1..=20 {
        let began = Instant::now();
        submit(&tasker, "shop/order").await;
        pager.is_told(told).await;
        let soon = Duration::from_secs(11);
        assert!(began.elapsed() <= soon, "with the next sign of life: {:?}", began.elapsed());
        chat.is_told(told).await;
    }
    tokio::time::sleep(LONG).await;
    assert_eq!((chat.times(), pager.times()), (20, 20));
    with.shutdown(LONG).await;
    without.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_no_worker_has_is_named_and_then_forgotten() {
    let store = memory();
    let (chat, pager) = (Pager::new("chat", Mood::Well), Pager::new("pager", Mood::Well));
    let with = tasker(&store, &[&chat, &pager]);
    let worker = with.worker().start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    worker.shutdown(LONG).await;
    let tasker = tasker(&store, &[&chat]);
    let without = tasker.worker().start();
    submit(&tasker, "shop/order").await;
    tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
    let waiting = only(&tasker).await.deliveries["pager"].clone();
    let words = waiting.last_error.as_deref();
    assert_eq!(words, Some("no worker that looked has a sink of this name"));
    assert!(waiting.attempts == 0 && waiting.next_at.is_some(), "{waiting:?}");
    assert_eq!((chat.times(), pager.times()), (1, 0));
    // Within an hour of its return.
    let worker = with.worker().start();
    let began = Instant::now();
    pager.is_told(1).await;
    assert!(began.elapsed() <= Duration::from_secs(3610), "{:?}", began.elapsed());
    worker.shutdown(LONG).await;

    tokio::time::sleep(LONG + Duration::from_secs(6 * 3600)).await;
    submit(&tasker, "shop/order").await;
    chat.is_told(2).await;
    let found = all(&tasker).await;
    assert_eq!(found[0].deliveries.keys().collect::<Vec<_>>(), ["chat"]);
    without.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_kills_its_workers_is_told() {
    let store = memory();
    let pager = Pager::new("pager", Mood::Well);
    let tasker = tasker(&store, &[&pager]);
    let id = submit(&tasker, "slow").await;
    let template = store.load(id).await.unwrap().unwrap().template;
    let routes = Arc::new(BTreeSet::from([Route::of(&template)]));
    for _ in 0..MAX_DELIVERIES {
        let worker = WorkerId::new();
        let beat = |lease| {
            let (name, running) = (String::new(), Vec::new());
            Heartbeat { worker, name, lease, spare: 1, running }
        };
        store.renew(beat(Some(LONG))).await.unwrap();
        let routes = routes.clone();
        let request = ClaimRequest { worker, routes, tasks: 1, offers: 0, holding: None };
        store.claim(request).await.unwrap();
        store.renew(beat(None)).await.unwrap();
    }
    let worker = tasker.worker().start();
    pager.is_told(1).await;
    let told = pager.told()[0].1.to_string();
    assert!(told.ends_with("out of circulation: 10 workers were lost with it in a row"), "{told}");
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_does_not_look_for_escalations() {
    let store = FaultyStore::new(MemoryStore::new());
    let shared: Arc<dyn StateStore> = Arc::new(store.clone());
    let pager = Pager::new("pager", Mood::Well);
    let tasker = tasker(&shared, &[&pager]);
    let worker = tasker.worker().start();
    submit(&tasker, "shop/order").await;
    pager.is_told(1).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let before = store.calls();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let calls = store.calls() - before;
    assert!(calls <= 600, "{calls} calls in an hour");
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn two_sinks_of_one_name_are_refused() {
    let pager = Pager::new("pager", Mood::Well);
    let builder = Tasker::builder_on(memory()).escalate_to(pager.clone()).escalate_to(pager);
    assert_eq!(builder.build().unwrap_err(), RegisterError::DuplicateSink("pager".to_owned()));
}
