use std::sync::atomic::{AtomicBool, Ordering};

use tasker_core::{Action, EscalateError, EscalationState, Json, MemoryStore, Operator};

use super::*;

#[tokio::test(start_paused = true)]
async fn what_somebody_has_seen_to_is_told_no_more() {
    for resolves in [false, true] {
        let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
        let pager = Pager::new("pager", Mood::Fails(usize::MAX));
        let tasker = tasker(&store, &[&pager]);
        let worker = tasker.worker().start();
        submit(&tasker, "shop/order").await;
        pager.is_told(4).await;
        let key = only(&tasker).await.key;
        let ada = Operator::new("ada", "I call the bank");
        let seen = match resolves {
            false => tasker.acknowledge(&key, &ada).await.unwrap(),
            true => tasker.resolve_escalation(&key, &ada).await.unwrap(),
        };
        let by = if resolves { seen.resolved } else { seen.acknowledged };
        assert_eq!(by.map(|seen| seen.by).as_deref(), Some("ada"));
        tokio::time::sleep(LONG).await;
        // What is resolved is told as that to who may have heard of it.
        let later = pager.told().split_off(4);
        let resolved = |it: &Escalation| it.state == EscalationState::Resolved;
        assert!(later.iter().all(|(_, it)| resolved(it)), "{later:?}");
        assert_eq!(later.is_empty(), !resolves);
        worker.shutdown(LONG).await;
    }
}

#[tokio::test(start_paused = true)]
async fn seen_during_a_delivery_it_stays_seen() {
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
    let pager = Pager::new("pager", Mood::Hangs(usize::MAX));
    let tasker = tasker(&store, &[&pager]);
    let worker = tasker.worker().start();
    submit(&tasker, "shop/order").await;
    pager.is_told(1).await;
    let key = only(&tasker).await.key;
    tasker.acknowledge(&key, &Operator::new("ada", "seen")).await.unwrap();
    tokio::time::sleep(LONG).await;
    assert_eq!(pager.times(), 1);
    let escalation = only(&tasker).await;
    assert_eq!(escalation.state, EscalationState::Acknowledged);
    assert!(escalation.deliveries["pager"].last_error.is_some(), "how it ended is on record");
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn who_was_first_is_kept_and_what_makes_no_sense_is_refused() {
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
    let pager = Pager::new("pager", Mood::Well);
    let tasker = tasker(&store, &[&pager]);
    let worker = tasker.worker().start();
    submit(&tasker, "shop/order").await;
    pager.is_told(1).await;
    let key = only(&tasker).await.key;
    let (ada, bob) = (Operator::new("ada", "mine"), Operator::new("bob", "no, mine"));
    tasker.acknowledge(&key, &ada).await.unwrap();
    let again = tasker.acknowledge(&key, &bob).await.unwrap();
    assert_eq!(again.acknowledged.unwrap().by, "ada");
    tasker.resolve_escalation(&key, &bob).await.unwrap();
    let again = tasker.resolve_escalation(&key, &ada).await.unwrap();
    assert_eq!(again.resolved.unwrap().by, "bob");
    let refused = tasker.acknowledge(&key, &ada).await.unwrap_err();
    assert!(refused.to_string().contains("was resolved by bob at "), "{refused}");
    let unknown = tasker.acknowledge("none", &ada).await.unwrap_err();
    assert!(matches!(unknown, EscalateError::NotFound(key) if key == "none"));
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn they_are_listed_newest_first_by_state_and_page() {
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
    let pager = Pager::new("pager", Mood::Well);
    let tasker = tasker(&store, &[&pager]);
    let worker = tasker.worker().start();
    for number in 1..=7 {
        submit(&tasker, "shop/order").await;
        pager.is_told(number).await;
    }
    let newest_first = all(&tasker).await;
    assert!(newest_first.iter().rev().is_sorted_by_key(|it| it.raised_at));
    tasker.resolve_escalation(&newest_first[3].key, &Operator::new("ada", "")).await.unwrap();
    let state = Some(EscalationState::Open);
    let mut query = EscalationQuery { state, limit: 2, ..EscalationQuery::default() };
    let mut listed = Vec::new();
    loop {
        let page = tasker.escalations(query.clone()).await.unwrap();
        listed.extend(page.escalations.into_iter().map(|it| it.key));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    let mut open: Vec<_> = newest_first.into_iter().map(|it| it.key).collect();
    open.remove(3);
    assert_eq!(listed, open);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn acting_on_the_task_settles_its_escalations() {
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
    let pager = Pager::new("pager", Mood::Well);
    let broken = Arc::new(AtomicBool::new(true));
    let step = StepTemplate::new("step").retry(RetryPolicy::none());
    let step = step.expected_within(Duration::from_secs(60)).timeout(LONG);
    let template = TaskTemplate::builder("task").step(step).build().unwrap();
    let fails = broken.clone();
    let step = step_fn(move |_: StepContext| {
        let fails = fails.load(Ordering::SeqCst);
        async move {
            if fails {
                return Err(StepError::permanent("BROKEN", "it is broken"));
            }
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    let workflow = Workflow::new(template).step("step", step);
    let builder = Tasker::builder_on(store).register(workflow).escalate_to(pager.clone());
    let tasker = builder.build().unwrap();
    let worker = tasker.worker().start();
    let id = submit(&tasker, "task").await;
    pager.is_told(1).await;
    // Its alarm finds that it has ended, and is gone.
    tokio::time::sleep(Duration::from_secs(3600)).await;

    broken.store(false, Ordering::SeqCst);
    tasker.retry(id, &Operator::new("ada", "repaired")).await.unwrap();
    let settled = only(&tasker).await;
    assert_eq!(settled.state, EscalationState::Resolved);
    let seen = settled.resolved.unwrap();
    assert_eq!((seen.by.as_str(), seen.note.as_str()), ("ada", "repaired"));
    // The task has its time anew.
    let retried = Instant::now();
    pager.is_told(3).await;
    let late = retried.elapsed();
    assert_eq!(pager.told()[1].1.state, EscalationState::Resolved);
    assert_eq!((late.as_secs(), pager.told()[2].1.incident.kind()), (60, "step_overdue"));
    tasker.cancel(id, &Operator::new("bob", "given up")).await.unwrap();
    let states: Vec<_> = all(&tasker).await.iter().map(|it| it.state).collect();
    assert_eq!(states, [EscalationState::Resolved; 2]);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn what_an_action_does_not_answer_stays_open() {
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
    let pager = Pager::new("pager", Mood::Well);
    let step = |name| StepTemplate::new(name).retry(RetryPolicy::none()).handler("fails");
    let template = TaskTemplate::builder("task").step(step("left")).step(step("right"));
    let fails = step_fn(|step: StepContext| async move {
        // Both have begun before one fails.
        tokio::time::sleep(Duration::from_secs(1)).await;
        if step.attempt() == 1 {
            return Err(StepError::permanent("BROKEN", "it is broken"));
        }
        std::future::pending::<Result<(), _>>().await
    });
    let workflow = Workflow::new(template.build().unwrap()).step("fails", fails);
    let builder = Tasker::builder_on(store).register(workflow).escalate_to(pager.clone());
    let tasker = builder.build().unwrap();
    let worker = tasker.worker().start();
    let id = submit(&tasker, "task").await;
    pager.is_told(2).await;
    tasker.wait(id, LONG).await.unwrap();
    let ada = Operator::new("ada", "the address was wrong");
    let edit = Action::EditContext { context: Json::of("another").unwrap() };
    tasker.operate(id, edit, &ada).await.unwrap();
    assert!(all(&tasker).await.iter().all(|it| it.state == EscalationState::Open));
    tasker.operate(id, Action::Retry, &ada).await.unwrap();
    assert!(all(&tasker).await.iter().all(|it| it.state == EscalationState::Resolved));
    worker.shutdown(Duration::ZERO).await;
}
