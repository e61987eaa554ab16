//! For all templates, and for all texts.

use std::fmt::Write as _;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use tasker_core::{
    Backoff, OnFailure, RetryPolicy, StepTemplate, Strategy as Growth, TaskTemplate, YamlSource,
};

const VALID: &str = include_str!("order_processing.yaml");

fn backoff() -> impl Strategy<Value = Backoff> {
    let strategy =
        prop_oneof![Just(Growth::Exponential), Just(Growth::Linear), Just(Growth::Fixed)];
    (strategy, 0u64..90_000, 0u64..90_000, 4u32..20, 0u32..=8).prop_map(
        |(strategy, base, more, quarters, eighths)| Backoff {
            strategy,
            base: Duration::from_millis(base),
            max: Duration::from_millis(base + more),
            multiplier: f64::from(quarters) / 4.0,
            jitter: f64::from(eighths) / 8.0,
        },
    )
}

fn on_failure() -> impl Strategy<Value = OnFailure> {
    let fallback = "[a-z:]{1,8}".prop_map(OnFailure::Fallback);
    prop_oneof![Just(OnFailure::Fail), Just(OnFailure::Continue), fallback]
}

/// A step without its name and parents.
fn step() -> impl Strategy<Value = StepTemplate> {
    let retry = (any::<bool>(), 1u32..100, backoff())
        .prop_map(|(retryable, limit, backoff)| RetryPolicy { retryable, limit, backoff });
    let words = proptest::option::of("[ -~äß\u{1F600}\n]{0,12}");
    let config = proptest::option::of("[ -~\n\t]{0,8}");
    (words, "[!-~]{1,8}", retry, 1u64..1_000_000, on_failure(), config).prop_map(
        |(description, handler, retry, timeout, on_failure, config)| StepTemplate {
            description,
            retry,
            config: config.map(|key| json!({ key: [1, null, "x"], "n": 0.5 }).into()),
            ..StepTemplate::new("")
                .handler(handler)
                .timeout(Duration::from_millis(timeout))
                .on_failure(on_failure)
        },
    )
}

/// Steps of which each waits for some of those before it.
fn steps() -> impl Strategy<Value = Vec<StepTemplate>> {
    let step = (step(), "[!-~é][ -~é]{0,6}[!-~é]", any::<u8>());
    proptest::collection::vec(step, 1..8).prop_map(|steps| {
        let names: Vec<_> =
            steps.iter().enumerate().map(|(at, (_, name, _))| format!("{name}{at}")).collect();
        let named = steps.into_iter().enumerate().map(|(at, (step, _, parents))| {
            let parents = (0..at).filter(|parent| parents >> parent & 1 == 1);
            let depends_on = parents.map(|parent| names[parent].clone()).collect();
            StepTemplate { name: names[at].clone(), depends_on, ..step }
        });
        named.collect()
    })
}

/// A template as YAML; every text in it is quoted as JSON quotes it, which YAML reads as well.
fn yaml(name: &str, steps: &[StepTemplate]) -> String {
    let mut text = format!("name: {}\nstep_templates:\n", json!(name));
    for step in steps {
        let backoff = step.retry.backoff;
        let strategy = match backoff.strategy {
            Growth::Exponential => "exponential",
            Growth::Linear => "linear",
            Growth::Fixed => "fixed",
        };
        let on_failure = match &step.on_failure {
            OnFailure::Fail => json!("fail"),
            OnFailure::Continue => json!("continue"),
            OnFailure::Fallback(handler) => json!({ "fallback": handler }),
        };
        let _ = write!(
            text,
            "  - name: {name}\n    handler_class: {handler}\n    depends_on_steps: {parents}\n    \
             retryable: {retryable}\n    retry_limit: {limit}\n    timeout: {timeout}\n    \
             on_failure: {on_failure}\n    backoff: {{ strategy: {strategy}, base: {base}, \
             max: {max}, multiplier: {multiplier}, jitter: {jitter} }}\n    \
             description: {description}\n    handler_config: {config}\n",
            name = json!(step.name),
            handler = json!(step.handler),
            parents = json!(step.depends_on),
            retryable = step.retry.retryable,
            limit = step.retry.limit,
            timeout = step.timeout.as_millis(),
            base = backoff.base.as_millis(),
            max = backoff.max.as_millis(),
            multiplier = backoff.multiplier,
            jitter = backoff.jitter,
            description = json!(step.description),
            config = step.config.as_ref().map_or("~", |config| config.as_str()),
        );
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_template_is_the_same_from_rust_from_yaml_and_from_a_store(steps in steps()) {
        let builder = TaskTemplate::builder("order");
        let built = steps.iter().cloned().fold(builder, |order, step| order.step(step)).build();
        let built = built.unwrap();
        prop_assert_eq!(built.steps(), &steps[..]);
        let read = TaskTemplate::from_yaml(&yaml("order", &steps)).unwrap();
        prop_assert_eq!(read.body(), built.body());
        let stored = TaskTemplate::from_stored(built.body().as_str()).unwrap();
        prop_assert_eq!(stored.steps(), &steps[..]);
        prop_assert_eq!(stored.fingerprint(), built.fingerprint());
    }

    #[test]
    fn any_text_is_a_template_or_a_list_of_faults(text in "\\PC{0,80}|[-:?*&!|>{}\\[\\],#%@ \n\ta-c<0.~'\"]{0,120}") {
        if let Err(error) = TaskTemplate::from_yaml(&text) {
            prop_assert!(!error.faults().is_empty());
        }
    }

    #[test]
    fn a_damaged_file_is_a_template_or_a_list_of_faults(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..6),
    ) {
        let mut bytes = VALID.as_bytes().to_vec();
        for (at, byte, how) in damage {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte % 128),
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let source = YamlSource::new(&text).named("o.yaml").environment("development");
        if let Err(error) = TaskTemplate::from_yaml(source) {
            prop_assert!(error.faults().iter().all(|fault| fault.position.is_some()), "{error}");
        }
    }

    #[test]
    fn a_damaged_stored_template_does_not_panic(at in any::<prop::sample::Index>(), byte: u8) {
        let order = TaskTemplate::from_yaml(VALID).unwrap();
        let mut bytes = order.body().as_str().as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = TaskTemplate::from_stored(&String::from_utf8_lossy(&bytes));
    }
}
