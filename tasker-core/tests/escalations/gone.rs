//! What an escalation is about is over: it is settled without a person, and whoever was told of it
//! is told that.

use std::sync::atomic::{AtomicBool, Ordering};

use tasker_core::breaker::SystemPolicy;
use tasker_core::decide::{self, Decision, Order};
use tasker_core::history::Author;
use tasker_core::snapshot::Snapshot;
use tasker_core::testing::{FaultyStore, Loss};
use tasker_core::{Action, EscalationState, MemoryStore, Operator, TaskState};
use tokio::sync::Notify;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn memory() -> Arc<dyn StateStore> {
    Arc::new(MemoryStore::new())
}

/// Each escalation: what it is, who settled it and why.
async fn settled(tasker: &Tasker) -> Vec<(&'static str, Option<(String, String)>)> {
    let mut found = all(tasker).await;
    found.reverse();
    let seen = |it: Escalation| {
        let resolved = it.resolved.map(|seen| (seen.by, seen.note));
        (it.incident.kind(), resolved)
    };
    found.into_iter().map(seen).collect()
}

fn by(who: &str, why: &str) -> Option<(String, String)> {
    Some((who.to_owned(), why.to_owned()))
}

/// What a sink was told: of what, and whether it was over.
fn heard(pager: &Pager) -> Vec<(&'static str, EscalationState)> {
    pager.told().iter().map(|(_, it)| (it.incident.kind(), it.state)).collect()
}

/// A task that is to end within an hour, with a step that is to within ten minutes and ends when it
/// is told to.
fn slow(store: &Arc<dyn StateStore>, pager: &Pager) -> (Tasker, Arc<Notify>) {
    let step = StepTemplate::new("wait").timeout(LONG).expected_within(10 * MINUTE);
    let template = TaskTemplate::builder("slow").deadline(60 * MINUTE).step(step);
    let template =
        template.step(StepTemplate::new("end").handler("wait").timeout(LONG).after("wait"));
    let go_on = Arc::new(Notify::new());
    let told = go_on.clone();
    let wait = step_fn(move |_: StepContext| {
        let told = told.clone();
        async move {
            told.notified().await;
            Ok(())
        }
    });
    let workflow = Workflow::new(template.build().unwrap()).step("wait", wait);
    let builder = Tasker::builder_on(store.clone()).register(workflow);
    (builder.escalate_to(pager.clone()).build().unwrap(), go_on)
}

#[tokio::test(start_paused = true)]
async fn what_was_overdue_and_ends_is_settled() {
    let pager = Pager::new("pager", Mood::Well);
    let (tasker, go_on) = slow(&memory(), &pager);
    let worker = tasker.worker().start();
    let id = submit(&tasker, "slow").await;
    pager.is_told(1).await;
    go_on.notify_one();
    pager.is_told(2).await;
    let step_ended = by("tasker", "step `wait` has ended (complete)");
    assert_eq!(settled(&tasker).await, [("step_overdue", step_ended.clone())]);
    pager.is_told(3).await;
    tokio::time::sleep(90 * MINUTE).await;
    assert_eq!(all(&tasker).await[0].state, EscalationState::Open, "it has not ended");
    go_on.notify_one();
    assert_eq!(tasker.wait(id, LONG).await.unwrap().state, TaskState::Complete);
    let ended = Instant::now();
    pager.is_told(4).await;
    assert!(ended.elapsed() < Duration::from_millis(100), "at once: {:?}", ended.elapsed());
    let task_ended = by("tasker", "the task has ended (complete)");
    assert_eq!(
        settled(&tasker).await,
        [("step_overdue", step_ended), ("task_overdue", task_ended)]
    );
    tokio::time::sleep(90 * MINUTE).await;
    let (open, resolved) = (EscalationState::Open, EscalationState::Resolved);
    assert_eq!(
        heard(&pager),
        [
            ("step_overdue", open),
            ("step_overdue", resolved),
            ("task_overdue", open),
            ("task_overdue", resolved)
        ]
    );
    let told = pager.told();
    assert_eq!((&told[0].1.key, &told[2].1.key), (&told[1].1.key, &told[3].1.key));
    let sentence = told[3].1.to_string();
    assert!(sentence.ends_with("; resolved by tasker"), "{sentence}");
    worker.shutdown(LONG).await;
}

/// A step that calls a bank whose breaker opens with the second failure in a row.
fn bank(store: &Arc<dyn StateStore>, pager: &Pager) -> (Tasker, Arc<AtomicBool>) {
    let policy = SystemPolicy { minimum_calls: 2, probes: 1, ..SystemPolicy::default() };
    let step = StepTemplate::new("charge").dependent_system("bank");
    let step = step.retry(RetryPolicy::fixed(3, Duration::from_secs(1)));
    let template = TaskTemplate::builder("pay").system("bank", policy).step(step);
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let charge = step_fn(move |_: StepContext| {
        let down = is_down.load(Ordering::SeqCst);
        async move { if down { Err(StepError::retryable("no answer")) } else { Ok(()) } }
    });
    let workflow = Workflow::new(template.build().unwrap()).step("charge", charge);
    let builder = Tasker::builder_on(store.clone()).register(workflow);
    (builder.escalate_to(pager.clone()).build().unwrap(), down)
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_closes_settles_its_escalation_and_opens_with_another() {
    let pager = Pager::new("pager", Mood::Well);
    let (tasker, down) = bank(&memory(), &pager);
    let worker = tasker.worker().start();
    let first = submit(&tasker, "pay").await;
    pager.is_told(1).await;
    // A probe that fails changes nothing.
    tokio::time::sleep(MINUTE).await;
    down.store(false, Ordering::SeqCst);
    tasker.wait(first, LONG).await.unwrap();
    pager.is_told(2).await;
    let answers = by("tasker", "`bank` answers again");
    assert_eq!(settled(&tasker).await, [("breaker_opened", answers.clone())]);

    down.store(true, Ordering::SeqCst);
    let second = submit(&tasker, "pay").await;
    pager.is_told(3).await;
    assert_eq!(
        settled(&tasker).await,
        [("breaker_opened", answers.clone()), ("breaker_opened", None)]
    );
    down.store(false, Ordering::SeqCst);
    tasker.reset_system("bank", &Operator::new("ada", "they called")).await.unwrap();
    pager.is_told(4).await;
    let reset = by("ada", "they called");
    assert_eq!(settled(&tasker).await, [("breaker_opened", answers), ("breaker_opened", reset)]);
    tasker.wait(second, LONG).await.unwrap();
    worker.shutdown(LONG).await;
    assert_eq!(pager.times(), 4);
}

#[tokio::test(start_paused = true)]
async fn who_opens_a_breaker_for_longer_settles_what_said_that_it_is_open() {
    let pager = Pager::new("pager", Mood::Well);
    let (tasker, _) = bank(&memory(), &pager);
    let worker = tasker.worker().start();
    submit(&tasker, "pay").await;
    pager.is_told(1).await;
    tasker.trip_system("bank", &Operator::new("ada", "they move house")).await.unwrap();
    pager.is_told(2).await;
    assert_eq!(settled(&tasker).await, [("breaker_opened", by("ada", "they move house"))]);
    worker.shutdown(LONG).await;
}

/// A task whose first step can be undone, and whose second fails for good.
fn undone(store: &Arc<dyn StateStore>, pager: &Pager) -> Tasker {
    let step = StepTemplate::new("reserve").compensate_with("release");
    let template = TaskTemplate::builder("order").step(step);
    let charge = StepTemplate::new("charge").after("reserve").retry(RetryPolicy::none());
    let does = || step_fn(|_: StepContext| async { Ok(()) });
    let fails =
        step_fn(|_: StepContext| async { Err::<(), _>(StepError::permanent("DECLINED", "no")) });
    let workflow = Workflow::new(template.step(charge).build().unwrap());
    let workflow = workflow.step("reserve", does()).step("release", does()).step("charge", fails);
    let builder = Tasker::builder_on(store.clone()).register(workflow);
    builder.escalate_to(pager.clone()).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_step_whose_failure_was_undone_needs_somebody_still() {
    let pager = Pager::new("pager", Mood::Well);
    let tasker = undone(&memory(), &pager);
    let worker = tasker.worker().start();
    let id = submit(&tasker, "order").await;
    assert_eq!(tasker.wait(id, LONG).await.unwrap().state, TaskState::Compensated);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(settled(&tasker).await, [("step_failed", None)]);
    tasker.retry(id, &Operator::new("ada", "the customer has another card")).await.unwrap();
    tasker.wait(id, LONG).await.unwrap();
    let ada = by("ada", "the customer has another card");
    assert_eq!(settled(&tasker).await, [("step_failed", ada), ("step_failed", None)]);
    worker.shutdown(LONG).await;
}

/// A task whose step takes ten minutes, and is to end within one.
fn late(store: &Arc<dyn StateStore>, pager: &Pager) -> Tasker {
    let step = StepTemplate::new("wait").timeout(LONG).expected_within(MINUTE);
    let template = TaskTemplate::builder("order").step(step).build().unwrap();
    let wait = step_fn(|_: StepContext| async {
        tokio::time::sleep(10 * MINUTE).await;
        Ok(())
    });
    let builder = Tasker::builder_on(store.clone());
    let builder = builder.register(Workflow::new(template).step("wait", wait));
    builder.escalate_to(pager.clone()).build().unwrap()
}

/// Whatever call fails, nobody is left with an escalation that is over.
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_at_any_call_leaves_nothing_open() {
    for loss in [Loss::OfCall, Loss::OfAnswer] {
        for call in 1..=24 {
            let store = FaultyStore::new(MemoryStore::new());
            store.fail_call(call, loss);
            let pager = Pager::new("pager", Mood::Well);
            let shared: Arc<dyn StateStore> = Arc::new(store.clone());
            let tasker = late(&shared, &pager);
            let worker = tasker.worker().start();
            let request = || TaskRequest::new("order", &"").unwrap().idempotency_key("one");
            while tasker.submit(request()).await.is_err() {}
            tokio::time::sleep(30 * MINUTE).await;
            let scene = format!("call {call}, {loss:?}");
            assert_eq!(store.failures(), 1, "{scene}");
            let escalation = only(&tasker).await;
            assert_eq!(escalation.state, EscalationState::Resolved, "{scene}");
            let heard = heard(&pager);
            assert!(heard.len() <= 2, "{scene}: {heard:?}");
            if let Some((_, state)) = heard.last() {
                assert_eq!(*state, EscalationState::Resolved, "{scene}");
            }
            worker.shutdown(LONG).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_action_whose_author_crashed_settles_what_it_answered() {
    let store = memory();
    let pager = Pager::new("pager", Mood::Well);
    let tasker = tasker(&store, &[&pager]);
    let worker = tasker.worker().start();
    let id = submit(&tasker, "shop/order").await;
    tasker.wait(id, LONG).await.unwrap();
    pager.is_told(1).await;
    // The action is on record, and its author gone.
    let stored = store.load(id).await.unwrap().unwrap();
    let mut snapshot = Snapshot::replay(&stored);
    let order = Order { reason: "the bank was told".to_owned(), key: None, expects: None };
    let decided = decide::operate(&mut snapshot, &Action::Retry, &order, stored.now).unwrap();
    let Decision::Change(change) = decided else { panic!("it was not retried before") };
    store.commit(&Author::Operator("ada".to_owned()), vec![*change]).await.unwrap();
    // The worker finds it, and that the step has failed once more.
    pager.is_told(3).await;
    let retried = by("ada", "the bank was told");
    assert_eq!(settled(&tasker).await, [("step_failed", retried), ("step_failed", None)]);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_person_settled_stays_as_it_is() {
    let pager = Pager::new("pager", Mood::Well);
    let (tasker, go_on) = slow(&memory(), &pager);
    let worker = tasker.worker().start();
    let id = submit(&tasker, "slow").await;
    pager.is_told(1).await;
    let key = only(&tasker).await.key;
    tasker.resolve_escalation(&key, &Operator::new("bob", "it takes its time")).await.unwrap();
    pager.is_told(2).await;
    go_on.notify_one();
    tokio::time::sleep(MINUTE).await;
    go_on.notify_one();
    tasker.wait(id, LONG).await.unwrap();
    tokio::time::sleep(90 * MINUTE).await;
    let bob = by("bob", "it takes its time");
    assert_eq!(settled(&tasker).await, [("step_overdue", bob)]);
    assert_eq!(pager.times(), 2);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn who_was_not_told_is_not_told_that_it_is_over() {
    let store = memory();
    let pager = Pager::new("pager", Mood::Well);
    let silent = Tasker::builder_on(store.clone());
    let silent =
        workflows().into_iter().fold(silent, |builder, workflow| builder.register(workflow));
    let elsewhere = silent.build().unwrap();
    let id = submit(&elsewhere, "slow").await;
    tokio::time::sleep(90 * MINUTE).await;
    elsewhere.cancel(id, &Operator::new("ada", "nobody works")).await.unwrap();
    let worker = tasker(&store, &[&pager]).worker().start();
    tokio::time::sleep(90 * MINUTE).await;
    assert_eq!(heard(&pager), []);
    worker.shutdown(LONG).await;
}
