//! The checks for workflows let good ones pass and name what is wrong with others.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tasker_core::testing::WorkflowTest;
use tasker_core::{
    OnFailure, RetryPolicy, StepContext, StepError, StepTemplate, TaskState, TaskTemplate,
    Workflow, step_fn,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What a third party has booked, by the key that it was given.
type Ledger = Arc<Mutex<BTreeMap<String, u32>>>;

/// A booking that a second delivery does not repeat, or does.
fn order(careful: bool) -> (Workflow, Ledger) {
    let ledger = Ledger::default();
    let book = move |step: &StepContext, ledger: &Ledger| {
        let mut ledger = ledger.lock().unwrap();
        let number = ledger.len();
        let key = step.idempotency_key();
        let key = if careful { key.to_owned() } else { format!("{key} {number}") };
        *ledger.entry(key).or_insert(1)
    };
    let slow = RetryPolicy::fixed(3, 10 * DAY);
    let template = TaskTemplate::builder("order")
        .step(StepTemplate::new("reserve").retry(slow))
        .step(StepTemplate::new("charge").after("reserve"))
        .step(StepTemplate::new("notify").after("charge").on_failure(OnFailure::Continue))
        .step(StepTemplate::new("ship").after("charge").retry(RetryPolicy::none()))
        .step(StepTemplate::new("close").after_all(["notify", "ship"]))
        .build()
        .unwrap();
    let (reserved, charged) = (ledger.clone(), ledger.clone());
    let workflow = Workflow::new(template)
        .step(
            "reserve",
            step_fn(move |step: StepContext| {
                let booked = book(&step, &reserved);
                async move { Ok(booked) }
            }),
        )
        .step(
            "charge",
            step_fn(move |step: StepContext| {
                let booked = book(&step, &charged);
                async move {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    Ok(booked)
                }
            }),
        )
        .step("notify", step_fn(|_: StepContext| async { Ok("sent") }))
        .step("ship", step_fn(|_: StepContext| async { Ok(()) }))
        .step(
            "close",
            step_fn(|step: StepContext| async move { step.optional_result_of::<String>("notify") }),
        );
    (workflow, ledger)
}

fn test_of(careful: bool) -> WorkflowTest<Ledger> {
    WorkflowTest::new(move || order(careful)).check(|status, ledger| {
        assert_eq!(status.state, TaskState::Complete);
        assert_eq!(ledger.lock().unwrap().len(), 2, "one reservation, one charge");
    })
}

/// What a test that must fail says.
fn complaint(test: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(test)).expect_err("the test finds the fault");
    let said = panic.downcast_ref::<String>().cloned();
    said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned())).unwrap()
}

#[test]
fn a_careful_workflow_passes() {
    let test = test_of(true);
    assert_eq!(test.run().state, TaskState::Complete);
    test.fail_each_step();
    test.give_up_each_step();
    test.repeat_each_step();
    test.crash_at_each_point();
}

#[test]
fn a_booking_without_its_key_is_found_by_every_test_that_delivers_twice() {
    let test = test_of(false);
    test.run();
    for said in [
        complaint(|| test.fail_each_step()),
        complaint(|| test.repeat_each_step()),
        complaint(|| test.crash_at_each_point()),
    ] {
        assert!(said.contains("one reservation, one charge"), "{said}");
    }
}

#[test]
fn a_child_that_cannot_do_without_an_optional_step_is_found() {
    let test = WorkflowTest::new(|| {
        let template = TaskTemplate::builder("needy")
            .step(StepTemplate::new("extra").on_failure(OnFailure::Continue))
            .step(StepTemplate::new("last").after("extra"))
            .build()
            .unwrap();
        let last = step_fn(|step: StepContext| async move { step.result_of::<u8>("extra") });
        let workflow = Workflow::new(template)
            .step("extra", step_fn(|_: StepContext| async { Ok(7) }))
            .step("last", last);
        (workflow, ())
    });
    test.fail_each_step();
    let said = complaint(|| test.give_up_each_step());
    assert!(said.contains("step `extra` failed permanently"), "{said}");
    assert!(
        said.contains("step `last`: step `extra` failed or was skipped and left no result"),
        "{said}"
    );
}

#[test]
fn a_fallback_takes_over() {
    let test = WorkflowTest::new(|| {
        let template = TaskTemplate::builder("guarded")
            .step(StepTemplate::new("pay").on_failure(OnFailure::Fallback("invoice".to_owned())))
            .build()
            .unwrap();
        let workflow = Workflow::new(template)
            .step("pay", step_fn(|_: StepContext| async { Ok("paid") }))
            .step("invoice", step_fn(|_: StepContext| async { Ok("invoiced") }));
        (workflow, ())
    });
    test.give_up_each_step();
    test.crash_at_each_point();
}

#[test]
fn a_step_that_cannot_be_delivered_twice_is_found() {
    let test = WorkflowTest::new(|| {
        let done = Arc::new(Mutex::new(false));
        let template =
            TaskTemplate::builder("once").step(StepTemplate::new("only")).build().unwrap();
        let only = step_fn(move |_: StepContext| {
            let again = std::mem::replace(&mut *done.lock().unwrap(), true);
            async move {
                if again { Err(StepError::permanent("DUPLICATE", "it exists")) } else { Ok(()) }
            }
        });
        (Workflow::new(template).step("only", only), ())
    });
    let said = complaint(|| test.repeat_each_step());
    assert!(said.contains("step `only` was delivered twice"), "{said}");
    assert!(said.contains("it exists (DUPLICATE)"), "{said}");
    let said = complaint(|| test.crash_at_each_point());
    assert!(said.contains("the worker died before"), "{said}");
}

#[test]
fn a_task_that_fails_undisturbed_fails_in_the_same_way_after_a_crash() {
    let test = WorkflowTest::new(|| {
        let step = StepTemplate::new("only").retry(RetryPolicy::fixed(3, 100 * DAY));
        let template = TaskTemplate::builder("hopeless").step(step).build().unwrap();
        let only = step_fn(|_: StepContext| async {
            Err::<(), _>(StepError::retryable("the moon is not right"))
        });
        (Workflow::new(template).step("only", only), ())
    })
    .check(|status, ()| {
        assert_eq!(status.state, TaskState::Error);
        assert_eq!(status.steps[0].attempts, 3, "a crash costs no attempt");
    });
    test.run();
    test.crash_at_each_point();
}

/// A payment that is refunded if the shipping fails.
fn refunded(careful: bool) -> (Workflow, Ledger) {
    let ledger = Ledger::default();
    let template = TaskTemplate::builder("order")
        .step(StepTemplate::new("pay").compensate_with("refund"))
        .step(StepTemplate::new("ship").after("pay"))
        .build()
        .unwrap();
    let (paid, back) = (ledger.clone(), ledger.clone());
    let pay = step_fn(move |step: StepContext| {
        paid.lock().unwrap().insert(step.idempotency_key().to_owned(), 50);
        async { Ok(()) }
    });
    let refund = step_fn(move |_: StepContext| {
        if careful {
            back.lock().unwrap().clear();
        }
        async { Ok(()) }
    });
    let ship = step_fn(|_: StepContext| async { Ok(()) });
    (Workflow::new(template).step("pay", pay).step("refund", refund).step("ship", ship), ledger)
}

#[test]
fn what_a_failed_task_did_is_undone_whenever_the_worker_dies() {
    let test = |careful| {
        WorkflowTest::new(move || refunded(careful))
            .check(|_, ledger| assert_eq!(ledger.lock().unwrap().len(), 1))
            .check_undone(|_, ledger| assert!(ledger.lock().unwrap().is_empty(), "it is paid back"))
    };
    test(true).give_up_each_step();
    test(true).crash_while_failing();
    assert!(complaint(|| test(false).give_up_each_step()).contains("it is paid back"));
}
