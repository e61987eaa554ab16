//! What becomes of tasks: failures and what surrounds them, cancellation, submission, events.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use tasker_core::store::TaskQuery;
use tasker_core::{
    EventKind, MemoryStore, OnFailure, Operator, Receipt, RetryPolicy, StateStore, StepContext,
    StepError, StepState, StepTemplate, SubmitError, TaskRequest, TaskState, TaskStatus,
    TaskTemplate, Tasker, Workflow, step_fn,
};
use tokio::sync::Notify;

const LONG: Duration = Duration::from_secs(3600);

/// A step that fails at once while its sibling still runs; a child of both comes last.
async fn failing_beside_a_sibling(reaction: OnFailure) -> TaskStatus {
    let template = TaskTemplate::builder("siblings")
        .step(StepTemplate::new("fails").on_failure(reaction.clone()).retry(RetryPolicy::none()))
        .step(StepTemplate::new("slow"))
        .step(StepTemplate::new("child").after_all(["fails", "slow"]))
        .build()
        .unwrap();
    let workflow = Workflow::new(template)
        .step(
            "fails",
            step_fn(|_: StepContext| async {
                Err::<(), _>(StepError::permanent("BROKEN", "it is broken"))
            }),
        )
        .step(
            "slow",
            step_fn(|_: StepContext| async {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok("slow")
            }),
        )
        .step("instead", step_fn(|_: StepContext| async { Ok("instead") }))
        .step(
            "child",
            step_fn(|step: StepContext| async move {
                assert_eq!(step.result_of::<String>("slow")?, "slow");
                step.optional_result_of::<String>("fails")
            }),
        );
    let tasker = Tasker::builder(MemoryStore::new()).register(workflow).build().unwrap();
    let worker = tasker.worker().start();
    let id = tasker.submit(TaskRequest::new("siblings", &()).unwrap()).await.unwrap().id;
    // While the sibling runs it is known that the task has gone on without the step.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let query = TaskQuery { degraded: Some(true), ..TaskQuery::default() };
    let degraded = tasker.find(query).await.unwrap();
    assert_eq!(degraded.len(), usize::from(reaction != OnFailure::Fail));
    assert!(degraded.iter().all(|task| task.state == TaskState::InProgress), "{degraded:?}");
    let status = tasker.wait(id, LONG).await.unwrap();
    assert_eq!(status.step("slow").unwrap().state, StepState::Complete, "siblings finish");
    worker.shutdown(LONG).await;
    status
}

#[tokio::test(start_paused = true)]
async fn a_task_fails_after_its_siblings_have_finished() {
    let status = failing_beside_a_sibling(OnFailure::Fail).await;
    assert_eq!(status.state, TaskState::Error);
    assert_eq!(status.step("fails").unwrap().state, StepState::Error);
    assert_eq!(status.step("child").unwrap().state, StepState::Blocked);
}

#[tokio::test(start_paused = true)]
async fn a_task_goes_on_without_an_optional_step() {
    let status = failing_beside_a_sibling(OnFailure::Continue).await;
    assert_eq!((status.state, status.degraded), (TaskState::Complete, true));
    assert_eq!(status.step("fails").unwrap().state, StepState::Error);
    assert_eq!(status.step("child").unwrap().result.as_ref().unwrap().as_str(), "null");
}

#[tokio::test(start_paused = true)]
async fn a_fallback_takes_over_while_a_sibling_runs() {
    let status = failing_beside_a_sibling(OnFailure::Fallback("instead".to_owned())).await;
    assert_eq!((status.state, status.degraded), (TaskState::Complete, true));
    assert_eq!(status.step("fails").unwrap().attempts, 2);
    assert_eq!(status.step("child").unwrap().result.as_ref().unwrap().as_str(), "\"instead\"");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_task_tells_its_running_step_and_refuses_its_report() {
    let (began, told) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begin, tell) = (began.clone(), told.clone());
    let template = TaskTemplate::builder("long")
        .step(StepTemplate::new("polite"))
        .step(StepTemplate::new("deaf"))
        .step(StepTemplate::new("after").after("polite"))
        .build()
        .unwrap();
    let polite = step_fn(move |step: StepContext| {
        let (begin, tell) = (begin.clone(), tell.clone());
        async move {
            begin.notify_one();
            step.cancellation().cancelled().await;
            assert!(step.heartbeat().is_err(), "a heartbeat says so as well");
            tell.notify_one();
            Ok("too late")
        }
    });
    let deaf = step_fn(|_: StepContext| async {
        tokio::time::sleep(LONG).await;
        Ok("never")
    });
    let never = step_fn(|_: StepContext| async { Ok("never") });
    let workflow =
        Workflow::new(template).step("polite", polite).step("deaf", deaf).step("after", never);
    let tasker = Tasker::builder(MemoryStore::new()).register(workflow).build().unwrap();
    let worker = tasker.worker().start();
    let id = tasker.submit(TaskRequest::new("long", &()).unwrap()).await.unwrap().id;
    began.notified().await;
    let operator = Operator::new("alice", "not wanted any more");
    let status = tasker.cancel(id, &operator).await.unwrap();
    assert_eq!(status.state, TaskState::Cancelled);
    told.notified().await;
    // Returns when nothing of it is held any more.
    worker.shutdown(LONG).await;
    let status = tasker.status(id).await.unwrap().unwrap();
    assert_eq!(status.state, TaskState::Cancelled, "terminal is terminal");
    assert!(status.steps.iter().all(|step| step.state == StepState::Cancelled));
    assert!(status.steps.iter().all(|step| step.attempts == 0 && step.result.is_none()));
    tasker.cancel(id, &operator).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_step_waits_for_a_worker_that_has_its_handler() {
    let template = TaskTemplate::builder("mixed")
        .step(StepTemplate::new("common"))
        .step(StepTemplate::new("rare").after("common"))
        .step(StepTemplate::new("last").after("rare"))
        .build()
        .unwrap();
    let template = Arc::new(template);
    let fine = || step_fn(|_: StepContext| async { Ok(()) });
    let lacking = Workflow::new(template.clone()).step("common", fine()).step("last", fine());
    let full = lacking.clone().step("rare", fine());
    let store = MemoryStore::new();
    let here = Tasker::builder(store.clone()).register_partial(lacking).build().unwrap();
    let there = Tasker::builder(store).register(full).build().unwrap();
    let worker = here.worker().start();
    let id = here.submit(TaskRequest::new("mixed", &()).unwrap()).await.unwrap().id;
    here.wait(id, LONG).await.unwrap_err();
    let status = here.status(id).await.unwrap().unwrap();
    assert_eq!(status.step("common").unwrap().state, StepState::Complete);
    let rare = status.step("rare").unwrap();
    assert_eq!((rare.state, rare.attempts), (StepState::Ready, 0), "no failure: it waits");

    let other = there.worker().start();
    let status = here.wait(id, LONG).await.unwrap();
    assert_eq!(status.state, TaskState::Complete);
    assert!(status.steps.iter().all(|step| step.attempts == 1));
    worker.shutdown(LONG).await;
    other.shutdown(LONG).await;
}

fn counting(calls: &Arc<AtomicU32>) -> Workflow {
    let template = TaskTemplate::builder("count").step(StepTemplate::new("only")).build().unwrap();
    let calls = calls.clone();
    let only = step_fn(move |_: StepContext| {
        let calls = calls.clone();
        async move { Ok(calls.fetch_add(1, Ordering::SeqCst)) }
    });
    Workflow::new(template).step("only", only)
}

/// On threads, in real time: a race needs some.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_submissions_with_one_key_start_one_task() {
    let calls = Arc::new(AtomicU32::new(0));
    let tasker = Tasker::builder(MemoryStore::new()).register(counting(&calls)).build().unwrap();
    let worker = tasker.worker().start();
    let mut submissions = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let tasker = tasker.clone();
        let request = TaskRequest::new("count", &1).unwrap().idempotency_key("key");
        submissions.spawn(async move { tasker.submit(request).await.unwrap() });
    }
    let receipts = submissions.join_all().await;
    let id = receipts[0].id;
    assert!(receipts.iter().all(|receipt| receipt.id == id));
    assert_eq!(receipts.iter().filter(|receipt| !receipt.already_existed).count(), 1);
    let other = TaskRequest::new("count", &2).unwrap().idempotency_key("key");
    let refused = tasker.submit(other).await.unwrap_err();
    assert!(matches!(refused, SubmitError::IdempotencyConflict { existing } if existing == id));
    assert_eq!(tasker.wait(id, LONG).await.unwrap().state, TaskState::Complete);
    worker.shutdown(LONG).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_submission_that_nobody_waits_for_happens_wholly_or_not_at_all() {
    let calls = Arc::new(AtomicU32::new(0));
    let tasker = Tasker::builder(MemoryStore::new()).register(counting(&calls)).build().unwrap();
    let worker = tasker.worker().start();
    for round in 0..40u32 {
        let mut submission = Box::pin(tasker.submit(TaskRequest::new("count", &round).unwrap()));
        let mut polls = round % 8;
        poll_fn(|context| {
            if polls == 0 || submission.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            polls -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        drop(submission);
        tokio::task::yield_now().await;
    }
    let query = TaskQuery { limit: 1000, ..TaskQuery::default() };
    let stored = tasker.find(query).await.unwrap();
    assert!(!stored.is_empty());
    for task in &stored {
        assert_eq!(tasker.wait(task.id, LONG).await.unwrap().state, TaskState::Complete);
    }
    worker.shutdown(LONG).await;
    assert_eq!(calls.load(Ordering::SeqCst) as usize, stored.len(), "each ran once");
}

#[tokio::test(start_paused = true)]
async fn events_come_in_order_and_after_what_they_tell_is_stored() {
    let template = TaskTemplate::builder("told")
        .step(StepTemplate::new("first").retry(RetryPolicy::fixed(2, Duration::from_secs(9))))
        .step(StepTemplate::new("second").after("first"))
        .build()
        .unwrap();
    let first = step_fn(|step: StepContext| async move {
        if step.attempt() == 1 { Err(StepError::retryable("not yet")) } else { Ok(()) }
    });
    let second = step_fn(|_: StepContext| async { Ok(()) });
    let workflow = Workflow::new(template).step("first", first).step("second", second);
    let tasker = Tasker::builder(MemoryStore::new()).register(workflow).build().unwrap();
    let mut events = tasker.events();
    let worker = tasker.worker().start();
    let id = tasker.submit(TaskRequest::new("told", &()).unwrap()).await.unwrap().id;
    let mut told = Vec::new();
    loop {
        let event = events.recv().await.unwrap();
        assert_eq!(event.task, id);
        let status = tasker.status(id).await.unwrap().unwrap();
        let is = |name: &str, state| status.step(name).unwrap().state == state;
        told.push(match event.kind {
            EventKind::TaskStarted => "task started".to_owned(),
            EventKind::StepStarted { step, attempt } => format!("{step} started {attempt}"),
            EventKind::StepFailed { step, attempt, .. } => {
                assert!(status.step(&step).unwrap().attempts >= attempt, "it is on record");
                format!("{step} failed {attempt}")
            }
            EventKind::StepRetrying { step, .. } => format!("{step} retrying"),
            EventKind::StepCompleted { step, attempt, .. } => {
                assert!(is(&step, StepState::Complete), "it is on record");
                format!("{step} completed {attempt}")
            }
            EventKind::TaskCompleted { degraded } => {
                assert!(!degraded && status.state == TaskState::Complete, "it is on record");
                break;
            }
            other => panic!("{other:?}"),
        });
    }
    let expected = [
        "task started",
        "first started 1",
        "first failed 1",
        "first retrying",
        "first started 2",
        "first completed 2",
        "second started 1",
        "second completed 1",
    ];
    assert_eq!(told, expected);
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_prepared_task_is_the_one_that_a_submission_would_store() {
    let store = MemoryStore::new();
    let template = TaskTemplate::builder("task").step(StepTemplate::new("step")).build().unwrap();
    let workflow = Workflow::new(template).step("step", step_fn(|_: StepContext| async { Ok(()) }));
    let tasker = Tasker::builder(store.clone()).register(workflow).build().unwrap();
    let request = |number: u32| {
        let request = TaskRequest::new("task", &number).unwrap();
        request.idempotency_key("key").delay(Duration::from_secs(60))
    };
    let task = tasker.prepare(request(1)).await.unwrap();
    assert!(store.find(Default::default()).await.unwrap().is_empty(), "nothing is stored");

    let created = store.create(vec![task.clone()], None).await.unwrap();
    let receipt = Receipt::of(&task, &created[0]).unwrap();
    assert_eq!(receipt, Receipt { id: task.id, already_existed: false });
    // A submission and a prepared task know each other by their key.
    let again = tasker.submit(request(1)).await.unwrap();
    assert_eq!(again, Receipt { id: task.id, already_existed: true });
    let other = tasker.prepare(request(2)).await.unwrap();
    let created = store.create(vec![other.clone()], None).await.unwrap();
    let conflict = Receipt::of(&other, &created[0]).unwrap_err();
    assert!(
        matches!(conflict, SubmitError::IdempotencyConflict { existing } if existing == task.id)
    );

    let began = tokio::time::Instant::now();
    let worker = tasker.worker().start();
    let status = tasker.wait(task.id, Duration::from_secs(3600)).await.unwrap();
    assert_eq!(status.state, TaskState::Complete);
    assert!(began.elapsed() >= Duration::from_secs(60), "its delay is kept");
    worker.shutdown(Duration::from_secs(1)).await;

    let refused = tasker.prepare(TaskRequest::new("task", &1).unwrap().idempotency_key("")).await;
    assert!(matches!(refused, Err(SubmitError::InvalidKey)), "what submit refuses is refused");
    let unknown = tasker.prepare(TaskRequest::new("unknown", &1).unwrap()).await;
    assert!(matches!(unknown, Err(SubmitError::UnknownTask { .. })));
}
