//! YAML: every fault with its line and column, aliases of keys, environments, the Rails format.

use std::process::Command;
use std::time::Duration;

use tasker_core::{OnFailure, Position, Strategy, TaskTemplate, YamlSource};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/template/order_processing.yaml");
const TEXT: &str = include_str!("order_processing.yaml");

fn refusal(text: &str) -> String {
    let source = YamlSource::new(text).named("o.yaml");
    TaskTemplate::from_yaml(source).expect_err(text).to_string()
}

/// The message of a template whose only step has these lines.
fn step_refusal(lines: &str) -> String {
    refusal(&format!("name: o\nstep_templates:\n  - name: a\n{lines}"))
}

#[test]
fn every_fault_of_the_text_has_its_place() {
    for (text, expected) in [
        ("", "o.yaml:1:1: a template must be a map, not nothing"),
        ("- a", "o.yaml:1:1: a template must be a map, not a list"),
        ("name: [", "o.yaml:1:7: unclosed bracket '['"),
        ("name: a: b", "o.yaml:1:8: mapping values are not allowed in this context"),
        (
            "name: a\nname: b\nb: 1\nb: 2",
            "o.yaml:2:1: the key \"name\" is there twice\n\
                               o.yaml:4:1: the key \"b\" is there twice",
        ),
        ("a: *b", "o.yaml:1:4: while parsing node, found unknown anchor"),
        ("a: &b [*b]", "o.yaml:1:8: the alias stands within what it repeats"),
        ("? [a]\n: 1", "o.yaml:1:3: a key must be a text, not a list or a map"),
        ("<<: 3", "o.yaml:1:5: << takes a map, not a number"),
        ("a: !ruby/object:X {}", "o.yaml:1:19: the tag \"!ruby/object:X\" has no meaning here"),
        ("a: !!int x", "o.yaml:1:10: this is no int, as its tag says"),
        ("name: a\n---\nname: b", "o.yaml:2:1: a second document begins; one file is one template"),
    ] {
        assert_eq!(refusal(text), expected, "{text}");
    }
}

#[test]
fn every_fault_of_a_task_has_its_place() {
    let steps = "step_templates: [{ name: a }]";
    for (text, expected) in [
        ("colour: red\nname: o", "o.yaml:1:1: unknown key \"colour\""),
        (
            "name: o\nstep_template: []",
            "o.yaml:2:1: unknown key \"step_template\"; did you mean \"step_templates\"?",
        ),
        ("description: d", "o.yaml:1:1: name is missing"),
        ("name:", "o.yaml:1:5: name is missing"),
        ("name: ''", "o.yaml:1:7: name is missing"),
        ("name: 5", "o.yaml:1:7: name must be a text"),
        ("name: \"a\\0b\"", "o.yaml:1:7: name \"a\\0b\" has a control character"),
        ("name: ' a'", "o.yaml:1:7: name \" a\" begins or ends with a space"),
        ("name: o\nnamespace_name: [a]", "o.yaml:2:17: namespace_name must be a text"),
        ("name: o\nversion: 1.0", "o.yaml:2:10: version must be a text such as \"1.0.0\""),
        (
            "name: o\nversion: '1.0'",
            "o.yaml:2:10: version \"1.0\" needs three numbers, such as \"1.0.0\"",
        ),
        (
            "name: o\nversion: new",
            "o.yaml:2:10: version \"new\" is not a semantic version such as \"1.0.0\"",
        ),
        ("name: o\ndescription: \"\\0\"", "o.yaml:2:14: description has a NUL character"),
        (
            "name: o\ndefault_dependent_system: ''",
            "o.yaml:2:27: default_dependent_system is missing",
        ),
        ("name: o\nenvironments: []", "o.yaml:2:15: environments must be a map"),
        ("name: o\nenvironments: { a: 1 }", "o.yaml:2:20: an environment must be a map"),
    ] {
        let refused = refusal(&format!("{text}\n{steps}"));
        assert_eq!(refused, expected, "{text}");
    }
    for (steps, expected) in [
        ("step_templates: []", "o.yaml:2:17: a template needs at least one step"),
        ("step_templates: {}", "o.yaml:2:17: step_templates must be a list of steps"),
        ("step_templates: [a]", "o.yaml:2:18: a step must be a map, not a text"),
        ("step_templates: [{}]", "o.yaml:2:18: name is missing"),
        ("step_templates: [{ name: 1 }]", "o.yaml:2:26: name must be a text"),
        ("", "o.yaml:1:1: a template needs at least one step"),
    ] {
        assert_eq!(refusal(&format!("name: o\n{steps}")), expected, "{steps}");
    }
}

#[test]
fn every_fault_of_a_step_has_its_place() {
    for (lines, expected) in [
        (
            "    retry_limti: 3",
            "o.yaml:4:5: unknown key \"retry_limti\"; did you mean \"retry_limit\"?",
        ),
        ("    retry_limit: 0", "o.yaml:4:18: step \"a\": retry_limit must be from 1 to 1000000"),
        (
            "    retry_limit: 1000001",
            "o.yaml:4:18: step \"a\": retry_limit must be from 1 to 1000000",
        ),
        (
            "    retry_limit: -1",
            "o.yaml:4:18: retry_limit must be a whole number from 1 to 1000000",
        ),
        (
            "    retry_limit: 2.5",
            "o.yaml:4:18: retry_limit must be a whole number from 1 to 1000000",
        ),
        (
            "    default_retry_limit: x",
            "o.yaml:4:26: retry_limit must be a whole number from 1 to 1000000",
        ),
        (
            "    handler: a\n    handler_class: b",
            "o.yaml:4:5: handler means the same as handler_class, which is there too",
        ),
        (
            "    handler: \"a\\n\"",
            "o.yaml:4:14: step \"a\": handler_class \"a\\n\" has a control character",
        ),
        ("    retryable: yes", "o.yaml:4:16: retryable must be true or false"),
        (
            "    timeout: 0",
            "o.yaml:4:14: step \"a\": timeout must be from 1 millisecond to 366 days",
        ),
        ("    timeout: -5", "o.yaml:4:14: timeout must be a whole number of milliseconds"),
        ("    timeout: .nan", "o.yaml:4:14: timeout must be a whole number of milliseconds"),
        (
            "    timeout: 99999999999999",
            "o.yaml:4:14: step \"a\": timeout must be from 1 millisecond to 366 days",
        ),
        ("    timeout: 1e300", "o.yaml:4:14: timeout must be a whole number of milliseconds"),
        (
            "    handler_config: { timeout_seconds: soon }",
            "o.yaml:4:40: timeout_seconds must be a number of seconds, at most 366 days",
        ),
        (
            "    handler_config: { timeout_seconds: -1 }",
            "o.yaml:4:40: timeout_seconds must be a number of seconds, at most 366 days",
        ),
        ("    handler_config: { a: [1, .inf] }", "o.yaml:4:30: JSON has no such number"),
        ("    handler_config: { a: \"\\0\" }", "o.yaml:4:21: a text in it has a NUL character"),
        ("    handler_config: { a: 1, a: 2 }", "o.yaml:4:29: the key \"a\" is there twice"),
        ("    backoff: 5", "o.yaml:4:14: backoff must be a map"),
        ("    backoff: { bas: 5 }", "o.yaml:4:16: unknown key \"bas\"; did you mean \"base\"?"),
        (
            "    backoff: { strategy: random }",
            "o.yaml:4:26: strategy must be exponential, linear or fixed",
        ),
        (
            "    backoff: { base: 9, max: 8 }",
            "o.yaml:4:22: step \"a\": base must not be more than max",
        ),
        (
            "    backoff: { max: 99999999999999 }",
            "o.yaml:4:21: step \"a\": max must not be more than 366 days",
        ),
        (
            "    backoff: { multiplier: 0.5 }",
            "o.yaml:4:28: step \"a\": multiplier must be 1 or more",
        ),
        ("    backoff: { multiplier: .inf }", "o.yaml:4:28: multiplier must be a number"),
        ("    backoff: { jitter: 1.5 }", "o.yaml:4:24: step \"a\": jitter must be from 0 to 1"),
        ("    backoff: { jitter: -0.1 }", "o.yaml:4:24: step \"a\": jitter must be from 0 to 1"),
        (
            "    on_failure: stop",
            "o.yaml:4:17: on_failure must be fail, continue or { fallback: handler }",
        ),
        (
            "    on_failure: {}",
            "o.yaml:4:17: on_failure must be fail, continue or { fallback: handler }",
        ),
        ("    on_failure: { fallback: '' }", "o.yaml:4:29: step \"a\": fallback is missing"),
        ("    dependent_system: 1", "o.yaml:4:23: dependent_system must be a text"),
        ("    depends_on_step: a", "o.yaml:4:22: step \"a\" depends on itself"),
        ("    depends_on_step: 1", "o.yaml:4:22: a step name must be a text, not a number"),
        ("    depends_on_steps: a", "o.yaml:4:23: depends_on_steps must be a list of step names"),
        ("  - name: a", "o.yaml:4:11: a step named \"a\" is there twice"),
        (
            "  - name: b\n    depends_on_steps: [a, a]",
            "o.yaml:5:27: step \"b\" depends on step \"a\" twice",
        ),
        (
            "  - name: charge\n    depends_on_step: reserve\n  - name: reserve_stock",
            "o.yaml:5:22: step \"charge\" depends on unknown step \"reserve\"; did you mean \"reserve_stock\"?",
        ),
        (
            "    depends_on_step: b\n  - name: b\n    depends_on_step: a",
            "o.yaml:4:22: the steps wait for each other: a -> b -> a",
        ),
        (
            "schema: { type: strin }",
            "o.yaml:4:17: not a valid JSON Schema: \"strin\" is not valid under any of the schemas listed in the 'anyOf' keyword",
        ),
        (
            "schema: { $ref: 'https://example.com/s.json' }",
            "o.yaml:4:17: nothing is fetched for a schema: put it under $defs and refer to it with \"#/$defs/…\"",
        ),
        (
            "schema: { pattern: '(?=a)' }",
            "o.yaml:4:20: not a valid JSON Schema: the pattern is malformed, too large or has look-around or back-references",
        ),
    ] {
        assert_eq!(step_refusal(lines), expected, "{lines}");
    }
}

#[test]
fn all_faults_are_told_in_the_order_of_the_text() {
    let text = "
name: order
colour: red
step_templates:
  - name: a
    retry_limit: 0
    depends_on_step: b
  - name: b
    timeout: soon
    depends_on_steps: [x, a]
";
    let error = TaskTemplate::from_yaml(text).unwrap_err();
    let places: Vec<_> = error.faults().iter().map(|fault| fault.pointer.as_str()).collect();
    let expected = [
        "/colour",
        "/step_templates/0/retry_limit",
        "/step_templates/0/depends_on_steps/0",
        "/step_templates/1/timeout",
        "/step_templates/1/depends_on_steps/0",
    ];
    assert_eq!(places, expected);
    assert_eq!(error.faults()[0].position, Some(Position { line: 3, column: 1 }));
    assert!(error.faults()[0].message.starts_with("unknown key"));
}

#[test]
fn every_key_is_read() {
    let text = "
name: order
namespace_name: shop
version: 2.1.0
description: Sells
default_dependent_system: shop
step_templates:
  - name: a
  - name: b
    description: Pays
    handler: Pay
    depends_on_step: a
    default_retryable: false
    default_retry_limit: 7
    timeout: 1500
    backoff: { strategy: linear, base: 20, multiplier: 3, max: 4000, jitter: 0 }
    on_failure: { fallback: PayLater }
    dependent_system: bank
    handler_config: { z: [1, ~, x], timeout_seconds: 9, a: true }
  - { name: c, depends_on_steps: [a, b], on_failure: continue }
  - { name: d, backoff: { base: 120000 }, handler_config: { timeout_seconds: 1.5 } }
";
    let order = TaskTemplate::from_yaml(text).unwrap();
    assert_eq!(order.task_type().to_string(), "shop/order@2.1.0");
    assert_eq!(order.description(), Some("Sells"));
    assert!(order.warnings().is_empty());
    let [a, b, c, d] = order.steps() else { panic!("{order:?}") };
    assert_eq!((a.handler.as_str(), a.dependent_system.as_deref()), ("a", Some("shop")));
    assert_eq!((b.handler.as_str(), b.dependent_system.as_deref()), ("Pay", Some("bank")));
    assert_eq!((b.retry.retryable, b.retry.limit), (false, 7));
    assert_eq!(b.timeout, Duration::from_millis(1500));
    let backoff = b.retry.backoff;
    assert_eq!(backoff.strategy, Strategy::Linear);
    assert_eq!((backoff.base, backoff.max), (Duration::from_millis(20), Duration::from_secs(4)));
    assert_eq!((backoff.multiplier, backoff.jitter), (3.0, 0.0));
    assert_eq!(b.on_failure, OnFailure::Fallback("PayLater".into()));
    let config = b.config.as_ref().map(|config| config.as_str());
    assert_eq!(config, Some(r#"{"a":true,"timeout_seconds":9,"z":[1,null,"x"]}"#));
    assert_eq!(
        (&c.depends_on[..], &c.on_failure),
        (&["a".into(), "b".into()][..], &OnFailure::Continue)
    );
    assert_eq!(d.retry.backoff.max, Duration::from_secs(120));
    assert_eq!(d.timeout, Duration::from_millis(1500));
}

#[test]
fn a_file_in_the_rails_format_loads_with_warnings() {
    let order = TaskTemplate::from_yaml(YamlSource::new(TEXT).named("order.yaml")).unwrap();
    assert_eq!(order.task_type().to_string(), "ecommerce/process_order@1.0.0");
    let warnings: Vec<_> = order.warnings().iter().map(ToString::to_string).collect();
    let expected = [
        "order.yaml:3:1: the key \"module_namespace\" has no effect: ",
        "order.yaml:4:1: the key \"task_handler_class\" has no effect: ",
        "order.yaml:22:1: the key \"named_steps\" has no effect: ",
        "order.yaml:39:5: the key \"skippable\" has no effect: ",
        "order.yaml:40:5: the key \"custom_events\" has no effect: ",
    ];
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
    for (warning, expected) in warnings.iter().zip(expected) {
        assert!(warning.starts_with(expected), "{warning}");
    }
    let [validate, pay] = order.steps() else { panic!("{order:?}") };
    assert_eq!((validate.retry.limit, validate.timeout), (3, Duration::from_secs(15)));
    assert_eq!((pay.retry.limit, pay.timeout), (2, Duration::from_millis(30_500)));
    assert_eq!(pay.handler, "Ecommerce::ProcessPaymentHandler");
    assert_eq!(validate.dependent_system.as_deref(), Some("ecommerce_system"));
}

#[test]
fn an_environment_is_merged_by_step_name_and_key() {
    let source = YamlSource::new(TEXT);
    let order = TaskTemplate::from_yaml(source.environment("development")).unwrap();
    let [validate, pay] = order.steps() else { panic!("{order:?}") };
    assert_eq!((validate.retry.limit, pay.retry.limit), (3, 1));
    assert_eq!(validate.dependent_system.as_deref(), Some("sandbox"));
    assert_eq!(pay.dependent_system.as_deref(), Some("payment_gateway"));
    let config = pay.config.as_ref().map(|config| config.as_str());
    assert_eq!(config, Some(r#"{"timeout_seconds":30.5,"url":"http://localhost:8080"}"#));

    let base = TaskTemplate::from_yaml(source).unwrap().fingerprint();
    for unchanged in ["production", "not_in_the_file"] {
        let order = TaskTemplate::from_yaml(source.environment(unchanged)).unwrap();
        assert_eq!(order.fingerprint(), base, "{unchanged}");
    }
}

#[test]
fn an_environment_is_checked_even_where_it_does_not_count() {
    let text = "
name: o
step_templates: [{ name: charge }]
environments:
  test:
    step_templates:
      - { name: chrage, retry_limit: 5 }
      - { retry_limit: 5 }
      - { name: charge, timeout: soon }
    environments: {}
    shema: {}
";
    let expected = "\
o.yaml:7:17: there is no step \"chrage\" to change; did you mean \"charge\"?
o.yaml:8:9: the name of the step to change is missing
o.yaml:9:34: timeout must be a whole number of milliseconds
o.yaml:10:5: an environment cannot have environments
o.yaml:11:5: unknown key \"shema\"; did you mean \"schema\"?";
    assert_eq!(refusal(text), expected);
}

#[test]
fn a_fault_that_an_environment_brings_is_told_where_it_stands() {
    let text = "
name: o
step_templates:
  - { name: a }
  - { name: b, depends_on_step: a }
environments:
  test:
    step_templates: [{ name: a, depends_on_step: b }]
";
    assert!(TaskTemplate::from_yaml(text).is_ok());
    let source = YamlSource::new(text).environment("test");
    let refused = TaskTemplate::from_yaml(source).unwrap_err().to_string();
    assert_eq!(refused, "8:50: the steps wait for each other: a -> b -> a");
}

#[test]
fn a_file_is_read_for_the_environment_in_tasker_env() {
    const THIS: &str = "yaml::a_file_is_read_for_the_environment_in_tasker_env";
    // The variable belongs to the whole process, so the test runs once more in one of its own.
    match std::env::var("TASKER_ENV").as_deref() {
        Ok("development") => {
            let order = TaskTemplate::from_yaml_file(FILE).unwrap();
            assert_eq!(order.steps()[1].retry.limit, 1);
        }
        _ => {
            let mut again = Command::new(std::env::current_exe().unwrap());
            let output = again.args([THIS, "--exact"]).env("TASKER_ENV", "development").output();
            let output = output.unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let refused = TaskTemplate::from_yaml_file("no/such/file.yaml").unwrap_err().to_string();
    assert!(refused.starts_with("cannot read no/such/file.yaml: "), "{refused}");
}
