//! What operators do to tasks, by way of a client and a worker.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;
use tasker_core::decide::Refused;
use tasker_core::{
    Action, EventKind, Json, MemoryStore, OnFailure, OperateError, Operator, RetryFilter,
    RetryPolicy, StepContext, StepError, StepState, StepTemplate, TaskCause, TaskId, TaskQuery,
    TaskRequest, TaskState, TaskStatus, TaskTemplate, Tasker, Timestamp, Workflow, step_fn,
};
use tokio::sync::Notify;

const LONG: Duration = Duration::from_secs(3600);

fn alice() -> Operator {
    Operator::new("alice", "it was looked into")
}

/// What the handlers do.
#[derive(Default)]
struct Shop {
    /// Whether payments go through.
    is_open: AtomicBool,
    payments: AtomicU32,
    letters: AtomicU32,
    begun: Notify,
}

/// `pay`, then `ship`, then `write`, which may fail; `pay` fails while the shop is closed.
fn order(shop: &Arc<Shop>) -> Tasker {
    let schema = json!({"type": "object", "properties": {"street": {"type": "string"}}});
    let template = TaskTemplate::builder("order")
        .schema(schema)
        .step(StepTemplate::new("pay").retry(RetryPolicy::fixed(2, Duration::from_secs(1))))
        .step(StepTemplate::new("ship").after("pay"))
        .step(StepTemplate::new("write").after("ship").on_failure(OnFailure::Continue))
        .build()
        .unwrap();
    let (paying, writing) = (shop.clone(), shop.clone());
    let workflow = Workflow::new(template)
        .step(
            "pay",
            step_fn(move |_: StepContext| {
                let shop = paying.clone();
                async move {
                    shop.payments.fetch_add(1, Ordering::SeqCst);
                    match shop.is_open.load(Ordering::SeqCst) {
                        true => Ok(json!({"paid": 50})),
                        false => Err(StepError::retryable("closed").with_code("CLOSED")),
                    }
                }
            }),
        )
        .step(
            "ship",
            step_fn(|step: StepContext| async move {
                let address: serde_json::Value = step.context()?;
                let paid: Option<serde_json::Value> = step.optional_result_of("pay")?;
                Ok(json!({"to": address["street"], "paid": paid}))
            }),
        )
        .step(
            "write",
            step_fn(move |_: StepContext| {
                let shop = writing.clone();
                async move {
                    shop.letters.fetch_add(1, Ordering::SeqCst);
                    Err::<(), _>(StepError::permanent("NO_PAPER", "no paper"))
                }
            }),
        );
    Tasker::builder(MemoryStore::new()).register(workflow).build().unwrap()
}

async fn submit(tasker: &Tasker) -> TaskId {
    let request = TaskRequest::new("order", &json!({"street": "Elm"})).unwrap();
    tasker.submit(request).await.unwrap().id
}

/// An order whose payment has failed for good, and the worker that goes on if it is retried.
async fn failed() -> (Arc<Shop>, Tasker, tasker_core::Worker, TaskId) {
    let shop = Arc::new(Shop::default());
    let tasker = order(&shop);
    let worker = tasker.worker().start();
    let id = submit(&tasker).await;
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!((status.state, shop.payments.load(Ordering::SeqCst)), (TaskState::Error, 2));
    shop.is_open.store(true, Ordering::SeqCst);
    (shop, tasker, worker, id)
}

fn step(name: &str) -> String {
    name.to_owned()
}

fn result<'a>(status: &'a TaskStatus, step: &str) -> &'a str {
    status.step(step).unwrap().result.as_ref().unwrap().as_str()
}

#[tokio::test(start_paused = true)]
async fn a_failed_step_is_retried_and_the_rest_follows() {
    let (shop, tasker, worker, id) = failed().await;
    let retry = Action::RetryStep { step: step("pay") };
    tasker.operate(id, retry, &alice()).await.unwrap();
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!((status.state, status.degraded), (TaskState::Complete, true));
    assert_eq!(shop.payments.load(Ordering::SeqCst), 3);
    assert_eq!(result(&status, "ship"), r#"{"paid":{"paid":50},"to":"Elm"}"#);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_complete_task_runs_again_from_a_step() {
    let (shop, tasker, worker, id) = failed().await;
    tasker.retry(id, &alice()).await.unwrap();
    assert_eq!(tasker.wait(id, LONG).await.unwrap().state, TaskState::Complete);
    let status =
        tasker.operate(id, Action::RetryFrom { step: step("ship") }, &alice()).await.unwrap();
    assert_eq!(status.step("pay").unwrap().state, StepState::Complete);
    assert_eq!(status.step("ship").unwrap().result, None);
    assert_eq!(status.step("write").unwrap().state, StepState::Blocked);
    assert!(!status.degraded, "what failed is to run again");
    assert_eq!(tasker.wait(id, LONG).await.unwrap().state, TaskState::Complete);
    let ran = [&shop.payments, &shop.letters].map(|count| count.load(Ordering::SeqCst));
    assert_eq!(ran, [3, 2]);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_result_given_by_hand_is_what_others_read() {
    let (_, tasker, worker, id) = failed().await;
    let by_hand = Json::of(&json!({"paid": "cash"})).unwrap();
    let resolve = Action::ResolveStep { step: step("pay"), result: by_hand };
    tasker.operate(id, resolve, &alice()).await.unwrap();
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!(status.step("pay").unwrap().state, StepState::ResolvedManually);
    assert_eq!(result(&status, "ship"), r#"{"paid":{"paid":"cash"},"to":"Elm"}"#);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_goes_on_without_a_skipped_step_and_is_degraded_at_once() {
    let (_, tasker, worker, id) = failed().await;
    let status =
        tasker.operate(id, Action::SkipStep { step: step("pay") }, &alice()).await.unwrap();
    assert!(status.degraded && !status.state.is_terminal());
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!(status.step("pay").unwrap().state, StepState::Skipped);
    assert_eq!(result(&status, "ship"), r#"{"paid":null,"to":"Elm"}"#);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn an_edited_context_is_checked_and_used() {
    let (_, tasker, worker, id) = failed().await;
    let edit = |street| {
        let context = Json::of(&json!({ "street": street })).unwrap();
        Action::EditContext { context }
    };
    let refused = tasker.operate(id, edit(json!(7)), &alice()).await.unwrap_err();
    let OperateError::Refused(Refused::InvalidContext(faults)) = &refused else {
        panic!("{refused}")
    };
    assert_eq!(faults[0].pointer, "/street");
    let status = tasker.operate(id, edit(json!("Oak")), &alice()).await.unwrap();
    assert_eq!((status.state, status.context.as_str()), (TaskState::Error, r#"{"street":"Oak"}"#));
    tasker.retry(id, &alice()).await.unwrap();
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!(result(&status, "ship"), r#"{"paid":{"paid":50},"to":"Oak"}"#);

    let history = tasker.history(id).await.unwrap().unwrap();
    let edited = history.iter().find(|entry| entry.event == "context_edited").unwrap();
    let shown = |aspect: &Option<tasker_core::history::Aspect>| {
        aspect.as_ref().unwrap().context.as_ref().unwrap().to_string()
    };
    assert_eq!(shown(&edited.before), r#"{"street":"Elm"}"#);
    assert_eq!(shown(&edited.after), r#"{"street":"Oak"}"#);
    let events: Vec<_> = history.iter().filter(|it| it.step.is_none()).map(|it| it.event).collect();
    let expected = ["submitted", "task_error", "context_edited", "retried", "task_complete"];
    assert_eq!(events, expected);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_task_stops_and_runs_again_uncounted() {
    let shop = Arc::new(Shop::default());
    let held = shop.clone();
    let slow = step_fn(move |step: StepContext| {
        let shop = held.clone();
        async move {
            let number = shop.payments.fetch_add(1, Ordering::SeqCst);
            shop.begun.notify_one();
            if number == 0 {
                step.cancellation().cancelled().await;
            }
            Ok(step.attempt())
        }
    });
    let template = TaskTemplate::builder("order").step(StepTemplate::new("pay")).build().unwrap();
    let workflow = Workflow::new(template).step("pay", slow);
    let tasker = Tasker::builder(MemoryStore::new()).register(workflow).build().unwrap();
    let worker = tasker.worker().start();
    let id = submit(&tasker).await;
    shop.begun.notified().await;

    let status = tasker.operate(id, Action::Pause, &alice()).await.unwrap();
    assert_eq!(status.state, TaskState::Paused);
    let why = tasker.why(id).await.unwrap().unwrap();
    assert!(matches!(why.cause, TaskCause::Paused { .. }));
    let said = why.to_string();
    assert!(said.starts_with("the task was paused by alice at "), "{said}");
    assert_eq!(why.steps[0].to_string(), "step `pay` goes on once its task is resumed");
    assert!(tasker.wait(id, LONG).await.is_err(), "it waits for a person");

    tasker.operate(id, Action::Resume, &alice()).await.unwrap();
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!((result(&status, "pay"), status.steps[0].attempts), ("1", 1));
    assert_eq!(shop.payments.load(Ordering::SeqCst), 2);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_kept_through_a_pause() {
    let tasker = order(&Arc::default());
    let request = TaskRequest::new("order", &json!({})).unwrap().delay(LONG);
    let id = tasker.submit(request).await.unwrap().id;
    for action in [Action::Pause, Action::Resume] {
        tasker.operate(id, action, &alice()).await.unwrap();
    }
    let why = tasker.why(id).await.unwrap().unwrap();
    assert!(matches!(why.cause, TaskCause::Delayed { .. }), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_new_retry_limit_counts_from_the_next_attempt() {
    let (shop, tasker, worker, id) = failed().await;
    shop.is_open.store(false, Ordering::SeqCst);
    let limit = Action::SetRetryLimit { step: step("pay"), limit: 5 };
    let status = tasker.operate(id, limit, &alice()).await.unwrap();
    assert_eq!((status.state, status.steps[0].retry_limit), (TaskState::Error, 5));
    tasker.retry(id, &alice()).await.unwrap();
    assert_eq!(tasker.wait(id, LONG).await.unwrap().state, TaskState::Error);
    assert_eq!(shop.payments.load(Ordering::SeqCst), 2 + 5);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_task_is_closed_by_a_person() {
    let (_, tasker, worker, id) = failed().await;
    let status = tasker.operate(id, Action::Resolve, &alice()).await.unwrap();
    assert_eq!(status.state, TaskState::ResolvedManually);
    assert_eq!(tasker.why(id).await.unwrap(), None);
    let refused = tasker.retry(id, &alice()).await.unwrap_err();
    let said = "the task is resolved_manually, so it cannot be retried: a person has closed it, so \
                submit another one";
    assert_eq!(refused.to_string(), said);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn an_order_with_a_key_is_carried_out_once() {
    let (_, tasker, worker, id) = failed().await;
    let once = alice().once("ticket 7");
    tasker.retry(id, &once).await.unwrap();
    assert_eq!(tasker.wait(id, LONG).await.unwrap().state, TaskState::Complete);
    let status = tasker.retry(id, &once).await.unwrap();
    assert_eq!(status.state, TaskState::Complete);
    let history = tasker.history(id).await.unwrap().unwrap();
    assert_eq!(history.iter().filter(|entry| entry.event == "retried").count(), 1);
    let refused = tasker.cancel(id, &once).await.unwrap_err();
    assert!(matches!(refused, OperateError::Refused(Refused::KeyReused { .. })), "{refused}");
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn an_order_for_a_task_that_has_moved_is_refused() {
    let (_, tasker, worker, id) = failed().await;
    let seen = tasker.status(id).await.unwrap().unwrap().version;
    let limit = Action::SetRetryLimit { step: step("pay"), limit: 5 };
    tasker.operate(id, limit, &alice().expecting(seen)).await.unwrap();
    let refused = tasker.retry(id, &alice().expecting(seen)).await.unwrap_err();
    let found = seen + 1;
    let said = format!(
        "the task has moved since you looked at it: it is error now, at version {found} and no \
         longer {seen}"
    );
    assert_eq!(refused.to_string(), said);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_what_is_in_the_way_and_what_can_be_done() {
    let (_, tasker, worker, id) = failed().await;
    let to = |action: fn(String) -> Action, name: &str| action(name.to_owned());
    let retry = |step| Action::RetryStep { step };
    let from = |step| Action::RetryFrom { step };
    let skip = |step| Action::SkipStep { step };
    for (action, said) in [
        (
            Action::Pause,
            "the task is error, so it cannot be paused: it can be retried, cancelled, compensated \
             or resolved",
        ),
        (
            to(retry, "ship"),
            "step `ship` is blocked and the task error, so it cannot be retried: only a step that \
             failed can, and others be run from again",
        ),
        (
            to(from, "ship"),
            "step `ship` is blocked and the task error, so it cannot be retried from that step: it \
             has not begun, and will once what it waits for has succeeded",
        ),
        (to(skip, "post"), "the task has no step `post`; it has pay, ship, write"),
        (
            Action::SetRetryLimit { step: step("pay"), limit: 0 },
            "the retry limit must be from 1 to 1000000",
        ),
        (Action::Compensate, "no step of the task that may have begun says how it is undone"),
    ] {
        let refused = tasker.operate(id, action, &alice()).await.unwrap_err();
        assert_eq!(refused.to_string(), said);
    }
    tasker.retry(id, &alice()).await.unwrap();
    tasker.wait(id, LONG).await.unwrap();
    let refused = tasker.operate(id, to(retry, "write"), &alice()).await;
    assert!(refused.is_ok(), "nothing rests on it");
    tasker.wait(id, LONG).await.unwrap();
    let refused = tasker.operate(id, to(skip, "pay"), &alice()).await.unwrap_err();
    let said = "step `pay` is complete and the task complete, so it cannot be skipped: it can be \
                run again from a step, or compensated";
    assert_eq!(refused.to_string(), said);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn failed_tasks_are_retried_in_bulk_page_by_page() {
    let shop = Arc::new(Shop::default());
    let tasker = order(&shop);
    let worker = tasker.worker().start();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(submit(&tasker).await);
    }
    for id in &ids {
        assert_eq!(tasker.wait(*id, LONG).await.unwrap().state, TaskState::Error);
    }
    shop.is_open.store(true, Ordering::SeqCst);
    let operator = alice().once("the gateway is back");
    let none_fits = [
        RetryFilter { failed_step: Some("write".to_owned()), ..RetryFilter::default() },
        RetryFilter { error_code: Some("DECLINED".to_owned()), ..RetryFilter::default() },
        RetryFilter { until: Some(Timestamp::UNIX_EPOCH), ..RetryFilter::default() },
        RetryFilter {
            tasks: TaskQuery { state: Some(TaskState::Cancelled), ..TaskQuery::default() },
            ..RetryFilter::default()
        },
    ];
    for filter in none_fits {
        let page = tasker.retry_all(&filter, &operator).await.unwrap();
        assert!(page.outcomes.is_empty(), "{filter:?}: {page:?}");
    }
    let (mut before, mut retried) = (None, Vec::new());
    loop {
        let tasks = TaskQuery { before, limit: 2, ..TaskQuery::default() };
        let filter = RetryFilter { tasks, ..RetryFilter::default() };
        let page = tasker.retry_all(&filter, &operator).await.unwrap();
        assert_eq!(page.retried(), page.outcomes.len());
        retried.extend(page.outcomes.iter().map(|(id, _)| *id));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    ids.reverse();
    assert_eq!(retried, ids, "newest first, each once");
    for id in ids {
        assert_eq!(tasker.wait(id, LONG).await.unwrap().state, TaskState::Complete);
    }
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn an_action_is_told_as_an_event() {
    let tasker = order(&Arc::default());
    let id = submit(&tasker).await;
    let mut events = tasker.events();
    tasker.operate(id, Action::SkipStep { step: step("pay") }, &alice()).await.unwrap();
    let told = events.recv().await.unwrap().kind;
    let EventKind::TaskOperated { action, step } = &told else { panic!("{told:?}") };
    assert_eq!((action.as_str(), step.as_deref()), ("skip_step", Some("pay")));
}

#[tokio::test(start_paused = true)]
async fn an_operator_has_a_name_that_every_store_can_keep() {
    let (_, tasker, worker, id) = failed().await;
    let refused = tasker.retry(id, &Operator::new("al\0ice", "again")).await.unwrap_err();
    assert!(matches!(refused, OperateError::Refused(Refused::Invalid { .. })), "{refused}");
    worker.shutdown(LONG).await;
}
