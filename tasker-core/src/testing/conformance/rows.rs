//! What is stored comes back as it was.

use std::time::Duration;

use jiff::Timestamp;

use super::Handles;
use super::fixture::{
    FIRST, LONG, SECOND, THIRD, apply, beat, by, change, completed, living, load, new_task,
    operated, order, owned, queued, template,
};
use crate::history::{
    AfterFailure, Aspect, Author, Failure, FailureClass, Occurrence, Operation, OrderKey, Recorded,
    Transition,
};
use crate::store::{Heartbeat, NewTask, StateStore, StoredTask, Then};
use crate::{
    ActionKind, Json, OnFailure, RetryPolicy, StepIndex, StepState, StepTemplate, TaskState,
    TaskTemplate, WorkerId,
};

/// Rows of one log with these occurrences.
fn log(step: Option<StepIndex>, occurrences: Vec<Occurrence>) -> Vec<Transition> {
    let rows = (1u32..).zip(occurrences).map(|(seq, what)| Transition {
        step,
        seq,
        attempt: if step.is_some() { seq } else { 0 },
        ran_for: Duration::from_millis(u64::from(seq) * 1_000_001),
        what,
    });
    rows.collect()
}

fn of(task: &StoredTask, step: Option<StepIndex>) -> Vec<Transition> {
    let rows = task.rows.iter().filter(|row| row.transition.step == step);
    rows.map(|row| row.transition.clone()).collect()
}

pub(super) async fn every_occurrence_comes_back(handles: Handles) {
    let (store, template) = (&*handles.here, template("kinds"));
    let worker = living(store).await;
    let task = owned(store, worker, &template).await;
    let classes = [
        FailureClass::Retryable,
        FailureClass::Permanent,
        FailureClass::TimedOut,
        FailureClass::Panicked,
        FailureClass::Unstorable,
    ];
    let nexts = [
        AfterFailure::RetryIn(Duration::from_millis(1_234_567)),
        AfterFailure::RetryIn(Duration::ZERO),
        AfterFailure::FallBack,
        AfterFailure::WaitForSystem,
        AfterFailure::GiveUp,
    ];
    let mut steps = vec![
        Occurrence::Completed { result: Json::null() },
        Occurrence::Reopened,
        Occurrence::Resolved { result: Json::of("by hand").unwrap() },
        Occurrence::Skipped { begun: true },
        Occurrence::LimitChanged { limit: u32::MAX },
        Occurrence::Compensated,
    ];
    for class in classes {
        for next in nexts {
            let (code, message) = ("A_CODE".to_owned(), "it 'failed'".to_owned());
            let failure = Failure { class, code, message };
            steps.push(Occurrence::Failed { failure: failure.clone(), next });
            steps.push(Occurrence::CompensationFailed { failure, next });
        }
    }
    let mut own: Vec<_> = ActionKind::ALL.map(|action| order(action, "enough")).into();
    let document = Json::from_stored(r#"{"b":1.50,"a":[ ]}"#);
    let before = Aspect {
        step: Some(StepState::Error),
        attempts: Some(3),
        limit: Some(u32::MAX),
        context: Some(document.clone()),
        result: Some(document),
        wake_at: Some(Timestamp::UNIX_EPOCH),
        ..Aspect::of(TaskState::Error)
    };
    let whole = Operation {
        action: ActionKind::EditContext,
        step: Some(SECOND),
        reason: String::new(),
        key: Some(OrderKey { key: "once".to_owned(), digest: "d".to_owned() }),
        ended_at: Some(task.now),
        after: before.clone(),
        before,
    };
    own.extend([
        Occurrence::Operated(Box::new(whole)),
        Occurrence::CompensationBegun,
        Occurrence::WorkerLost { worker: WorkerId::new() },
        Occurrence::Quarantined { deliveries: u32::MAX },
    ]);
    let (steps, own) = (log(Some(SECOND), steps), log(None, own));
    let rows = [steps.clone(), own.clone()].concat();
    apply(store, &by(worker), change(&task, rows, Then::Keep)).await;
    let stored = load(&*handles.there, task.id).await;
    assert_eq!(of(&stored, Some(SECOND)), steps);
    assert_eq!(of(&stored, None), own);
    assert_eq!(stored.rows.len(), steps.len() + own.len());
}

/// Stores a document as a context and as a result, and has both read back.
async fn round_trip(store: &dyn StateStore, worker: WorkerId, document: &str) {
    let template = template("json");
    let document = Json::parse(document).unwrap();
    let context = document.clone();
    let task = NewTask { context, ..new_task(&template) };
    let id = task.id;
    store.create(vec![task], Some(worker)).await.unwrap();
    let task = load(store, id).await;
    let result = document.clone();
    let row = Transition { what: Occurrence::Completed { result }, ..completed(FIRST, 1) };
    apply(store, &by(worker), change(&task, vec![row], Then::Keep)).await;
    let stored = load(store, id).await;
    let same = stored.context == document;
    assert!(same, "the context is another: {:.200}", stored.context.as_str());
    let Recorded { transition, .. } = &stored.rows[0];
    let Occurrence::Completed { result } = &transition.what else { panic!("{transition:?}") };
    assert!(*result == document, "the result is another: {:.200}", result.as_str());
}

pub(super) async fn awkward_json_comes_back(handles: Handles) {
    let worker = living(&*handles.here).await;
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    for document in [
        "null",
        "true",
        "0",
        "-0",
        "\"\"",
        "{}",
        "[]",
        "1e400",
        "0.1000",
        "123456789012345678901234567890.123456789",
        r#"{"b":1,"a":2,"b":3}"#,
        " { \"spaced\" :\n\t[ 1 , 2 ] } ",
        r#""Grüße 🌍 \ud83d\ude00 \u0001 \\u0000 \" ' -- ; $1 ? :a %s""#,
        "\"\u{202e}rtl \u{feff}bom \u{fffd} \u{10ffff}\"",
        r#"{"":{"":[null,[],{}]}}"#,
        &deep,
    ] {
        round_trip(&*handles.here, worker, document).await;
    }
}

pub(super) async fn large_json_comes_back(handles: Handles) {
    let worker = living(&*handles.here).await;
    for text in ["x", "ü"] {
        let document = format!("\"{}\"", text.repeat(1 << 20));
        round_trip(&*handles.here, worker, &document).await;
    }
}

pub(super) async fn awkward_names_come_back(handles: Handles) {
    let (store, template) = (&*handles.here, template("names"));
    let awkward =
        "O'Brien \"; DROP TABLE tasks; -- \u{202e}\n\t\\ 🦀 ".to_owned() + &"ü".repeat(500);
    let worker = living(store).await;
    let named = Heartbeat { name: awkward.clone(), ..beat(worker, Some(LONG)) };
    store.renew(named).await.unwrap();
    let task = owned(store, worker, &template).await;
    let failure =
        Failure { class: FailureClass::Permanent, code: awkward.clone(), message: awkward.clone() };
    let failed = Occurrence::Failed { failure, next: AfterFailure::GiveUp };
    let rows = log(Some(FIRST), vec![failed]);
    apply(store, &by(worker), change(&task, rows.clone(), Then::Keep)).await;
    let own = log(None, vec![order(ActionKind::Cancel, &awkward)]);
    for (name, seq) in [(awkward, 1), (String::new(), 2)] {
        let author = Author::Operator(name);
        let own: Vec<_> = own.iter().map(|row| Transition { seq, ..row.clone() }).collect();
        apply(store, &author, operated(&task, own.clone(), Then::Keep)).await;
        let stored = load(store, task.id).await;
        let added = stored.rows.iter().find(|row| row.transition == own[0]).unwrap();
        assert_eq!(added.author, author);
    }
    let stored = load(store, task.id).await;
    assert_eq!(of(&stored, Some(FIRST)), rows);
}

pub(super) async fn long_logs_come_back_in_order(handles: Handles) {
    let (store, template) = (&*handles.here, template("long"));
    let worker = living(store).await;
    let task = owned(store, worker, &template).await;
    let mut expected = Vec::new();
    for batch in 0..6 {
        let rows: Vec<_> = (1..=50).map(|seq| completed(THIRD, batch * 50 + seq)).collect();
        expected.extend(rows.clone());
        let rows = rows.into_iter().chain([completed(FIRST, batch + 1)]).collect();
        apply(store, &by(worker), change(&task, rows, Then::Keep)).await;
    }
    let stored = load(store, task.id).await;
    assert_eq!(of(&stored, Some(THIRD)), expected);
    assert_eq!(of(&stored, Some(FIRST)).len(), 6);
}

pub(super) async fn a_template_comes_back(handles: Handles) {
    let build = |retries: u32| {
        let retry = RetryPolicy::fixed(retries, Duration::from_millis(1500));
        let template = TaskTemplate::builder("rich")
            .namespace("näme'space")
            .version("1.2.3-rc.1")
            .description("does 'everything' 🌍")
            .schema(serde_json::json!({ "type": "object" }))
            .step(StepTemplate::new("a").retry(retry).config(serde_json::json!({ "k": [1] })))
            .step(StepTemplate::new("b").after("a").on_failure(OnFailure::Continue))
            .step(StepTemplate::new("c").on_failure(OnFailure::Fallback("d".to_owned())));
        std::sync::Arc::new(template.build().unwrap())
    };
    // The same kind of task with other contents: each task keeps what it was made of.
    for retries in [3, 4, 3] {
        let template = build(retries);
        let id = queued(&*handles.here, &template).await;
        let stored = load(&*handles.there, id).await.template;
        assert_eq!(stored.fingerprint(), template.fingerprint());
        assert_eq!(stored.steps(), template.steps());
        assert_eq!(stored.task_type(), template.task_type());
        assert_eq!(stored.description(), template.description());
        assert_eq!(stored.schema(), template.schema());
    }
}
