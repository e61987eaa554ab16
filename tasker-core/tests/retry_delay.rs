//! The wait before the next attempt, for any policy.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use tasker_core::{Backoff, Strategy as Growth};

fn durations() -> impl Strategy<Value = Duration> {
    prop_oneof![
        6 => (0..200_000u64).prop_map(Duration::from_millis),
        1 => any::<u64>().prop_map(Duration::from_secs),
        1 => Just(Duration::MAX),
    ]
}

fn backoffs() -> impl Strategy<Value = Backoff> {
    let growth = prop::sample::select(&[Growth::Exponential, Growth::Linear, Growth::Fixed][..]);
    let multiplier = prop_oneof![6 => 1.0..10.0f64, 1 => Just(f64::MAX), 1 => Just(0.0)];
    let max = (0..1_000_000u64).prop_map(Duration::from_millis);
    (growth, durations(), multiplier, max, 0.0..=1.0f64).prop_map(
        |(strategy, base, multiplier, max, jitter)| Backoff {
            strategy,
            base,
            multiplier,
            max,
            jitter,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_wait_is_longer_than_the_cap_nor_shorter_than_what_a_server_asked(
        backoff in backoffs(),
        attempt in any::<u32>(),
        asked in prop::option::of(durations()),
        seed in any::<u64>(),
    ) {
        let wait = backoff.delay(attempt, asked, seed);
        prop_assert!(wait <= backoff.max, "{wait:?}");
        prop_assert!(wait >= asked.unwrap_or_default().min(backoff.max), "{wait:?}");
    }

    #[test]
    fn without_jitter_waits_never_shrink(backoff in backoffs(), attempt in 1..u32::MAX) {
        let exact = Backoff { jitter: 0.0, ..backoff };
        prop_assert!(exact.delay(attempt, None, 0) <= exact.delay(attempt + 1, None, 0));
        // It comes to the cap and stays there.
        if exact.strategy != Growth::Fixed && exact.base >= Duration::from_millis(1) && exact.multiplier > 1.5 {
            prop_assert_eq!(exact.delay(u32::MAX, None, 0), exact.max);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_wait_and_other_seeds_stay_within_the_jitter(
        backoff in backoffs(),
        attempt in 1..50u32,
        seed in any::<u64>(),
    ) {
        prop_assert_eq!(backoff.delay(attempt, None, seed), backoff.delay(attempt, None, seed));
        let exact = Backoff { jitter: 0.0, ..backoff }.delay(attempt, None, seed).as_secs_f64();
        let wait = backoff.delay(attempt, None, seed).as_secs_f64();
        // Both are rounded to milliseconds.
        prop_assert!((wait - exact).abs() <= exact * backoff.jitter + 0.002, "{wait} {exact}");
    }

    #[test]
    fn a_crowd_that_failed_together_does_not_come_back_together(first in any::<u64>()) {
        let backoff = Backoff { base: Duration::from_secs(40), ..Backoff::default() };
        let seeds = (0..100).map(|number| first.wrapping_add(number));
        let waits: BTreeSet<_> = seeds.map(|seed| backoff.delay(1, None, seed)).collect();
        // 100 of 20,000 milliseconds: two may meet, not many.
        prop_assert!(waits.len() >= 90, "{}", waits.len());
        let spread = waits.last().zip(waits.first()).map(|(last, first)| *last - *first);
        prop_assert!(spread >= Some(Duration::from_secs(10)), "{spread:?}");
    }
}
