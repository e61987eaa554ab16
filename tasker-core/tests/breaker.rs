//! Breakers by themselves: any sequence of calls, probes, losses and operators.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use tasker_core::breaker::{
    Admission, Breaker, BreakerState, Call, Cause, Probe, SystemPolicy, Verdict, verdict,
};
use tasker_core::history::{Failure, FailureClass};
use tasker_core::{Json, StepTemplate, WorkerId};

fn failure(class: FailureClass, code: &str) -> Failure {
    Failure { class, code: code.to_owned(), message: "no answer".to_owned() }
}

fn down() -> Failure {
    failure(FailureClass::Retryable, "DOWN")
}

fn at(millis: u64) -> Timestamp {
    Timestamp::UNIX_EPOCH + Duration::from_millis(millis)
}

fn policy() -> impl Strategy<Value = SystemPolicy> {
    (0.1..=1.0f64, 1..6u32, 0..6u32, 1..5_000u64, 1..5_000u64, 1..4u32).prop_map(
        |(failure_rate, minimum_calls, more, window, interval, probes)| SystemPolicy {
            failure_rate,
            minimum_calls,
            window_calls: minimum_calls + more,
            window: Duration::from_millis(window),
            probe_interval: Duration::from_millis(interval),
            probes,
            initial_calls: 1,
        },
    )
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Wait(u64),
    /// Calls of one worker, the last of them failed.
    Calls(u8),
    Begin(u64),
    Succeed,
    Fail,
    Drop,
    Trip,
    Reset,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0..4_000u64).prop_map(Act::Wait),
        6 => any::<u8>().prop_map(Act::Calls),
        4 => (1..3_000u64).prop_map(Act::Begin),
        4 => Just(Act::Succeed),
        2 => Just(Act::Fail),
        1 => Just(Act::Drop),
        1 => Just(Act::Trip),
        1 => Just(Act::Reset),
    ];
    vec(act, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_breaker_keeps_its_promises(policy in policy(), acts in acts()) {
        let (mut breaker, mut now) = (Breaker::default(), 0);
        let mut probe: Option<Probe> = None;
        let mut in_a_row = 0;
        for act in acts {
            let before = breaker.clone();
            match act {
                Act::Wait(millis) => now += millis,
                Act::Calls(bits) => {
                    let mut calls: Vec<_> = (0..bits % 8)
                        .map(|bit| Call { at: at(now), failed: bits >> bit & 1 == 1 })
                        .collect();
                    calls.push(Call { at: at(now), failed: true });
                    let opened = breaker.merge(&calls, &down(), &policy, at(now));
                    prop_assert_eq!(opened, !before.is_open() && breaker.is_open());
                    prop_assert!(breaker.recent().len() <= policy.window_calls as usize);
                    if before.is_open() {
                        prop_assert_eq!(&breaker, &before);
                    } else if let Some(Cause::Failures { calls, failures, .. }) = breaker.cause() {
                        prop_assert!(*calls >= policy.minimum_calls as usize);
                        prop_assert!(*failures as f64 >= policy.failure_rate * *calls as f64);
                    } else {
                        let failed = breaker.recent().iter().filter(|call| call.failed).count();
                        let few = breaker.recent().len() < policy.minimum_calls as usize;
                        let calls = breaker.recent().len() as f64;
                        prop_assert!(few || (failed as f64) < policy.failure_rate * calls);
                    }
                    if opened {
                        in_a_row = 0;
                        let next = at(now) + policy.probe_interval;
                        prop_assert_eq!(breaker.admission(at(now)), Admission::Wait(Some(next)));
                    }
                }
                Act::Begin(takes) => {
                    let may = breaker.admission(at(now)) == Admission::Probe;
                    let takes = Duration::from_millis(takes);
                    let begun = breaker.begin_probe(WorkerId::new(), takes, at(now));
                    prop_assert_eq!(begun.is_some(), may);
                    if may {
                        // Nobody else may probe as long as this one may be under way.
                        prop_assert_ne!(breaker.admission(at(now)), Admission::Probe);
                        prop_assert_eq!(breaker.state(), BreakerState::HalfOpen);
                        prop_assert_eq!(breaker.admission(at(now) + takes), Admission::Probe);
                        probe = begun;
                    }
                }
                Act::Succeed => {
                    let Some(probe) = probe.take() else { continue };
                    let counts = before.probe() == Some(probe);
                    let closed = breaker.probe_succeeded(probe, &policy, at(now));
                    prop_assert_eq!(closed, before.is_open() && !breaker.is_open());
                    in_a_row += u32::from(counts);
                    prop_assert_eq!(closed, counts && in_a_row >= policy.probes);
                    if closed { in_a_row = 0; }
                }
                Act::Fail => {
                    let Some(probe) = probe.take() else { continue };
                    let counts = before.probe() == Some(probe);
                    breaker.probe_failed(probe, &down(), &policy, at(now));
                    if counts {
                        in_a_row = 0;
                        let next = at(now) + policy.probe_interval;
                        prop_assert_eq!(breaker.admission(at(now)), Admission::Wait(Some(next)));
                    } else {
                        prop_assert_eq!(&breaker, &before);
                    }
                }
                Act::Drop => {
                    let Some(probe) = probe.take() else { continue };
                    breaker.probe_dropped(probe);
                    prop_assert_eq!(breaker.is_open(), before.is_open());
                }
                Act::Trip => {
                    let changed = breaker.trip("Ada", "maintenance", at(now));
                    prop_assert_eq!(changed, breaker != before);
                    prop_assert_eq!(breaker.admission(Timestamp::MAX), Admission::Wait(None));
                    in_a_row = 0;
                }
                Act::Reset => {
                    let changed = breaker.reset("Ada", "it is back", at(now));
                    prop_assert_eq!(changed, before.is_open());
                    prop_assert_eq!(breaker.admission(at(now)), Admission::Go);
                    in_a_row = 0;
                }
            }
            if matches!(before.cause(), Some(Cause::Tripped { .. })) && !matches!(act, Act::Reset) {
                prop_assert!(breaker.is_open(), "only an operator closes what one opened");
            }
            prop_assert!(breaker.changes().len() <= 20);
            let stored: Breaker = Json::of(&breaker).unwrap().to().unwrap();
            prop_assert_eq!(stored, breaker.clone());
        }
    }

    #[test]
    fn calls_of_several_workers_merge_in_any_order(policy in policy(), flips in vec(any::<bool>(), 1..12)) {
        let calls: Vec<_> = (1u64..)
            .zip(&flips)
            .map(|(second, failed)| Call { at: at(second), failed: *failed })
            .collect();
        let (mut one, mut other) = (Breaker::default(), Breaker::default());
        let policy = SystemPolicy { minimum_calls: 100, window: Duration::from_secs(60), ..policy };
        for call in &calls {
            one.merge(&[*call], &down(), &policy, at(20));
        }
        for call in calls.iter().rev() {
            other.merge(&[*call], &down(), &policy, at(20));
        }
        let kept = policy.window_calls as usize;
        if calls.len() <= kept {
            prop_assert_eq!(one.recent(), other.recent());
        }
        prop_assert_eq!(one.recent(), &calls[calls.len().saturating_sub(kept)..]);
    }
}

#[test]
fn successes_alone_never_open_a_breaker_that_asks_for_no_failures() {
    let policy = SystemPolicy { failure_rate: 0.0, minimum_calls: 1, ..SystemPolicy::default() };
    let mut breaker = Breaker::default();
    assert!(!breaker.merge(&[Call { at: at(0), failed: false }], &down(), &policy, at(0)));
}

#[test]
fn what_is_not_an_error_of_the_system_is_a_good_answer() {
    use FailureClass::{Panicked, Permanent, Retryable, TimedOut, Unstorable};
    let by_default = StepTemplate::new("charge");
    let listed = StepTemplate::new("charge").system_errors(["DOWN", "TIMED_OUT"]);
    let few = StepTemplate::new("charge").system_errors(["DOWN"]);
    for (step, class, code, expected) in [
        (&by_default, Retryable, "DOWN", Verdict::Failed),
        (&by_default, TimedOut, "TIMED_OUT", Verdict::Failed),
        (&by_default, Permanent, "CARD_DECLINED", Verdict::Well),
        (&by_default, Unstorable, "RESULT_TOO_LARGE", Verdict::Well),
        (&by_default, Panicked, "PANICKED", Verdict::Silent),
        (&listed, Retryable, "DOWN", Verdict::Failed),
        (&listed, Permanent, "DOWN", Verdict::Failed),
        (&listed, TimedOut, "TIMED_OUT", Verdict::Failed),
        (&listed, Retryable, "RATE_LIMITED", Verdict::Well),
        (&few, TimedOut, "TIMED_OUT", Verdict::Silent),
    ] {
        assert_eq!(verdict(step, &failure(class, code)), expected, "{class:?} {code}");
    }
}
