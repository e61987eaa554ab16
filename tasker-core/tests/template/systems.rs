//! The keys about dependent systems and about what takes too long.

use std::time::Duration;

use tasker_core::breaker::SystemPolicy;
use tasker_core::{StepTemplate, TaskTemplate, YamlSource};

const ORDER: &str = "
name: order
deadline: 600000
dependent_systems:
  bank:
    failure_rate: 0.25
    minimum_calls: 4
    window_calls: 8
    window: 10000
    probe_interval: 5000
    probes: 3
    initial_calls: 1
  post:
step_templates:
  - name: charge
    dependent_system: bank
    system_errors: [DOWN, TIMED_OUT]
    compensate_with: Refund
    expected_within: 60000
  - name: send
    dependent_system: post
environments:
  test:
    deadline: 1000
    dependent_systems: { bank: { probe_interval: 100 } }
    step_templates: [ { name: charge, system_errors: [DOWN], expected_within: 1 } ]
";

fn bank() -> SystemPolicy {
    SystemPolicy {
        failure_rate: 0.25,
        minimum_calls: 4,
        window_calls: 8,
        window: Duration::from_secs(10),
        probe_interval: Duration::from_secs(5),
        probes: 3,
        initial_calls: 1,
    }
}

#[test]
fn all_keys_are_read_and_kept() {
    let order = TaskTemplate::from_yaml(ORDER).unwrap();
    assert!(order.warnings().is_empty());
    for order in [TaskTemplate::from_stored(order.body().as_str()).unwrap(), order] {
        assert_eq!(order.deadline(), Some(Duration::from_secs(600)));
        assert_eq!(order.system_policy("bank"), bank());
        assert_eq!(order.system_policy("post"), SystemPolicy::default());
        assert_eq!(order.system_policy("nobody"), SystemPolicy::default());
        let charge = &order.steps()[0];
        let codes = charge.system_errors.as_deref().unwrap();
        assert_eq!(codes, ["DOWN", "TIMED_OUT"]);
        assert_eq!(charge.compensate_with.as_deref(), Some("Refund"));
        assert_eq!(charge.expected_within, Some(Duration::from_secs(60)));
        assert_eq!(order.steps()[1].system_errors, None);
    }
}

#[test]
fn an_environment_changes_single_values() {
    let order = TaskTemplate::from_yaml(YamlSource::new(ORDER).environment("test")).unwrap();
    assert_eq!(order.deadline(), Some(Duration::from_secs(1)));
    let expected = SystemPolicy { probe_interval: Duration::from_millis(100), ..bank() };
    assert_eq!(order.system_policy("bank"), expected);
    assert_eq!(order.steps()[0].system_errors.as_deref().unwrap(), ["DOWN"]);
    assert_eq!(order.steps()[0].expected_within, Some(Duration::from_millis(1)));
}

#[test]
fn what_is_not_said_follows_what_is() {
    for (said, minimum_calls, window_calls) in
        [("minimum_calls: 50", 50, 50), ("window_calls: 3", 3, 3), ("minimum_calls: 2", 2, 10)]
    {
        let text = format!(
            "name: a\ndependent_systems: {{ bank: {{ {said} }} }}\n\
             step_templates: [ {{ name: b, dependent_system: bank }} ]"
        );
        let policy = TaskTemplate::from_yaml(&text).unwrap().system_policy("bank");
        assert_eq!((policy.minimum_calls, policy.window_calls), (minimum_calls, window_calls));
    }
}

#[test]
fn slips_are_told_with_their_places() {
    for (systems, steps, expected) in [
        ("bank: { probes: 0 }", "", "3:19: system \"bank\": probes must be from 1 to 1000"),
        (
            "bank: { failure_rate: 1.5 }",
            "",
            "3:25: system \"bank\": failure_rate must be more than 0 and at most 1",
        ),
        (
            "bank: { minimum_calls: 9, window_calls: 8 }",
            "",
            "3:26: system \"bank\": minimum_calls must be from 1 to window_calls",
        ),
        (
            "bank: { window: 0 }",
            "",
            "3:19: system \"bank\": window must be from 1 millisecond to 366 days",
        ),
        ("bank: { window: soon }", "", "3:19: window must be a whole number of milliseconds"),
        ("bank: { probes: few }", "", "3:19: probes must be a whole number"),
        ("bank: { probe: 2 }", "", "3:11: unknown key \"probe\"; did you mean \"probes\"?"),
        ("bank: 3", "", "3:9: a system must be a map, not a number"),
        (
            "bank: {}\n  bnak: {}",
            "",
            "4:9: no step depends on system \"bnak\"; did you mean \"bank\"?",
        ),
        (
            "bank: {}",
            "  - { name: c, system_errors: [X] }",
            "6:31: step \"c\": system_errors needs a dependent_system",
        ),
        (
            "bank: {}",
            "  - { name: c, dependent_system: bank, system_errors: X }",
            "6:55: system_errors must be a list, each item an error code",
        ),
        (
            "bank: {}",
            "  - { name: c, dependent_system: bank, system_errors: [7] }",
            "6:56: an error code must be a text, not a number",
        ),
        (
            "bank: {}",
            "  - { name: c, dependent_system: bank, system_errors: [''] }",
            "6:56: step \"c\": an error code is missing",
        ),
        (
            "bank: {}",
            "  - { name: c, expected_within: 0 }",
            "6:33: step \"c\": expected_within must be from 1 millisecond to 366 days",
        ),
        (
            "bank: {}",
            "  - { name: c, compensate_with: '' }",
            "6:33: step \"c\": compensate_with is missing",
        ),
    ] {
        let text = format!(
            "name: a\ndependent_systems:\n  {systems}\nstep_templates:\n  \
             - {{ name: b, dependent_system: bank }}\n{steps}"
        );
        let error = TaskTemplate::from_yaml(&text).unwrap_err().to_string();
        assert_eq!(error, expected, "{text}");
    }
    let deadline = "name: a\ndeadline: 0\nstep_templates: [ { name: b } ]";
    let error = TaskTemplate::from_yaml(deadline).unwrap_err().to_string();
    assert_eq!(error, "2:11: deadline must be from 1 millisecond to 366 days");
    let list = "name: a\ndependent_systems: [bank]\nstep_templates: [ { name: b } ]";
    let error = TaskTemplate::from_yaml(list).unwrap_err().to_string();
    assert_eq!(error, "2:20: dependent_systems must be a map of systems");
}

#[test]
fn a_slip_in_an_environment_shows_wherever_the_file_is_loaded() {
    let text = ORDER.replace("probe_interval: 100", "probe_interval: soon");
    let error = TaskTemplate::from_yaml(&text).unwrap_err().to_string();
    assert!(error.ends_with("probe_interval must be a whole number of milliseconds"), "{error}");
}

#[test]
fn the_builder_is_checked_in_the_same_way() {
    let policy = SystemPolicy { failure_rate: f64::NAN, ..SystemPolicy::default() };
    let step = StepTemplate::new("charge").dependent_system("bank");
    let error = TaskTemplate::builder("order").system("bank", policy).step(step).build();
    assert_eq!(
        error.unwrap_err().to_string(),
        "/dependent_systems/bank/failure_rate: system \"bank\": failure_rate must be more than 0 \
         and at most 1"
    );
    let step = StepTemplate::new("charge").system_errors(["DOWN"]);
    let error = TaskTemplate::builder("order").step(step).build().unwrap_err().to_string();
    assert!(error.contains("needs a dependent_system"), "{error}");
}
