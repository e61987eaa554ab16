//! The builder, the stored form and the fingerprint.

use std::time::Duration;

use serde_json::json;
use tasker_core::{
    Backoff, Json, OnFailure, RetryPolicy, StepTemplate, TaskTemplate, TaskTemplateBuilder,
};

fn small() -> TaskTemplateBuilder {
    TaskTemplate::builder("order")
        .namespace("shop")
        .version("1.0.0")
        .schema(json!({ "type": "object" }))
        .step(StepTemplate::new("reserve").config(json!({ "b": 1, "a": [2.5] })))
        .step(StepTemplate::new("charge").after("reserve").handler("Charge").retry_limit(5))
}

#[test]
fn the_stored_form_does_not_change_by_accident() {
    // Tasks that are running when Tasker is updated find their template by this digest. Whoever
    // changes it here says in the changelog what becomes of them.
    let order = small().build().unwrap();
    let expected = "99b4f61b3008bbae056c38cc6f5aaded56c9cdd5a821a766c3eb9becdf88fea0";
    assert_eq!(order.fingerprint().to_string(), expected, "{}", order.body());
}

#[test]
fn a_stored_template_is_the_same_template() {
    let order = small().build().unwrap();
    let again = TaskTemplate::from_stored(order.body().as_str()).unwrap();
    assert_eq!(again.fingerprint(), order.fingerprint());
    assert_eq!(again.body(), order.body());
    assert_eq!(again.steps(), order.steps());
    assert_eq!(again.task_type(), order.task_type());
    assert!(again.check_context(&Json::from(json!([]))).is_err());
}

#[test]
fn a_stored_template_keeps_the_fingerprint_of_its_text() {
    let body = small().build().unwrap().body().as_str().replace(':', ": ");
    let order = TaskTemplate::from_stored(&body).unwrap();
    assert_eq!(order.fingerprint(), tasker_core::Fingerprint::of(body.as_bytes()));
}

#[test]
fn a_stored_template_with_other_rules_is_refused() {
    let body = small().build().unwrap().body().as_str().to_owned();
    for (old, new, expected) in [
        ("\"steps\"", "\"stages\"", "the stored template cannot be read: unknown field `stages`"),
        (
            "\"limit\":5",
            "\"limit\":0",
            "/step_templates/1/retry_limit: step \"charge\": retry_limit",
        ),
        (
            "[\"reserve\"]",
            "[\"charge\"]",
            "/step_templates/1/depends_on_steps/0: step \"charge\" depends on itself",
        ),
        ("}", "", "the stored template cannot be read: "),
    ] {
        let told = TaskTemplate::from_stored(&body.replace(old, new)).unwrap_err().to_string();
        assert!(told.starts_with(expected), "{told}");
    }
}

#[test]
fn the_order_of_keys_does_not_count() {
    let yaml = "
step_templates:
  - { handler_config: { a: [2.5], b: 1 }, name: reserve }
  - { retry_limit: 5, handler: Charge, depends_on_step: reserve, name: charge }
schema: { type: object }
version: 1.0.0
namespace_name: shop
name: order
";
    let expected = small().build().unwrap();
    assert_eq!(TaskTemplate::from_yaml(yaml).unwrap().body(), expected.body());
    let mut step = StepTemplate::new("reserve");
    step.config = Some(Json::parse(" {\"b\": 1, \"a\": [ 2.5 ] }").unwrap());
    let by_hand = TaskTemplate::builder("order").step(step).build().unwrap();
    let config = by_hand.steps()[0].config.as_ref().map(|config| config.as_str());
    assert_eq!(config, Some(r#"{"a":[2.5],"b":1}"#));
}

#[test]
fn the_same_rules_hold_for_the_builder() {
    let backoff = Backoff { multiplier: f64::NAN, jitter: f64::NAN, ..Backoff::default() };
    let long = "x".repeat(300);
    let told = TaskTemplate::builder("")
        .namespace("\u{7f}")
        .version("one")
        .schema(json!({ "minimum": "low" }))
        .step(
            StepTemplate::new(long)
                .retry(RetryPolicy { limit: 0, backoff, ..RetryPolicy::default() })
                .timeout(Duration::MAX)
                .on_failure(OnFailure::Fallback(String::new()))
                .dependent_system("")
                .description("\0")
                .after_all(["b", "b", "c"]),
        )
        .step(StepTemplate { config: Some(Json::from_stored("{")), ..StepTemplate::new("b") })
        .step(StepTemplate::new("b"))
        .build()
        .unwrap_err();
    let places: Vec<_> = told.faults().iter().map(|fault| fault.pointer.as_str()).collect();
    let expected = [
        "/version",
        "/name",
        "/namespace_name",
        "/step_templates/0/name",
        "/step_templates/0/on_failure/fallback",
        "/step_templates/0/dependent_system",
        "/step_templates/0/description",
        "/step_templates/0/retry_limit",
        "/step_templates/0/timeout",
        "/step_templates/0/backoff/multiplier",
        "/step_templates/0/backoff/jitter",
        "/step_templates/2/name",
        "/step_templates/0/depends_on_steps/1",
        "/step_templates/0/depends_on_steps/2",
        "/step_templates/1/handler_config",
        "/schema/minimum",
    ];
    assert_eq!(places, expected, "{told}");
    let told = TaskTemplate::builder("o").build().unwrap_err().to_string();
    assert_eq!(told, "/step_templates: a template needs at least one step");
}

#[test]
fn templates_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<TaskTemplate>();
}
