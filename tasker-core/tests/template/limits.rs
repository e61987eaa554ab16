//! Inputs that are meant to hurt: large, deep, multiplying. That each test ends is the claim.

use std::fmt::Write as _;

use tasker_core::{StepTemplate, TaskTemplate};

const STEPS: usize = 20_000;

fn refusal(text: &str) -> String {
    TaskTemplate::from_yaml(text).unwrap_err().to_string()
}

fn chain(length: usize, first: &str) -> String {
    let mut text = format!("name: o\nstep_templates:\n  - {{ name: s0{first} }}\n");
    for at in 1..length {
        let _ = writeln!(text, "  - {{ name: s{at}, depends_on_step: s{} }}", at - 1);
    }
    text
}

#[test]
fn a_long_chain_is_one_path() {
    let order = TaskTemplate::from_yaml(&chain(STEPS, "")).unwrap();
    assert_eq!(order.dag().critical_path().len(), STEPS);
    assert_eq!(order.dag().levels().len(), STEPS);
}

#[test]
fn a_long_cycle_is_told_briefly() {
    let last = format!(", depends_on_step: s{}", STEPS - 1);
    let told = refusal(&chain(STEPS, &last));
    assert!(told.starts_with("3:34: the steps wait for each other: s0 -> s19999 -> s19998 -> "));
    assert!(told.ends_with(" -> … (19988 more) -> s0"), "{told}");
}

#[test]
fn a_wide_fan_joins() {
    let names: Vec<_> = (0..STEPS).map(|at| format!("s{at}")).collect();
    let steps = names.iter().map(|name| StepTemplate::new(name).after("start"));
    let order = steps
        .fold(TaskTemplate::builder("o"), |order, step| order.step(step))
        .step(StepTemplate::new("start"))
        .step(StepTemplate::new("join").after_all(names.clone()))
        .build()
        .unwrap();
    let levels: Vec<_> = order.dag().levels().iter().map(Vec::len).collect();
    assert_eq!(levels, [1, STEPS, 1]);
    assert_eq!(order.dag().ancestors(order.index_of("join").unwrap()).len(), STEPS + 1);
}

#[test]
fn many_faults_are_counted() {
    let mut text = String::from("name: o\nstep_templates:\n");
    for at in 0..STEPS {
        let _ = writeln!(text, "  - {{ name: s{at}, depends_on_step: none_{at} }}");
    }
    let error = TaskTemplate::from_yaml(&text).unwrap_err();
    assert_eq!(error.faults().len(), 100);
    assert!(error.to_string().ends_with("\n19900 more faults are not listed"));
}

#[test]
fn too_many_steps_are_refused() {
    let steps = (0..50_001).map(|at| StepTemplate::new(at.to_string()));
    let order = steps.fold(TaskTemplate::builder("o"), |order, step| order.step(step));
    let told = order.build().unwrap_err().to_string();
    assert_eq!(told, "/step_templates: there are more than 50000 steps");
}

#[test]
fn aliases_cannot_multiply() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for at in 1..12 {
        let tenfold = vec![format!("*a{}", at - 1); 10].join(", ");
        let _ = writeln!(bomb, "a{at}: &a{at} [{tenfold}]");
    }
    assert_eq!(refusal(&bomb), "5:40: the aliases repeat too much");
    let nested: String = (0..60).map(|at| format!("&a{at} [")).collect();
    let many = format!("- {nested}{}{}", "x, ".repeat(5_000), "]".repeat(60));
    assert_eq!(refusal(&many), "1:238: the anchors hold too much");
}

#[test]
fn nesting_has_an_end_whichever_way_it_is_made() {
    let deep = "lists and maps are nested more than 64 deep";
    for text in ["- ".repeat(100_000), "[".repeat(100_000), "{a: ".repeat(100_000), "a:\n".into()] {
        let told = refusal(&text);
        assert!(told.ends_with(deep) || text == "a:\n", "{told}");
    }
    // Each alias holds what the one before held, sixty deeper.
    let mut text = format!("a0: &a0 {}x{}\n", "[".repeat(60), "]".repeat(60));
    for at in 1..50 {
        let (open, close) = ("[".repeat(60), "]".repeat(60));
        let _ = writeln!(text, "a{at}: &a{at} {open}*a{}{close}", at - 1);
    }
    assert!(refusal(&text).ends_with(deep));
}

#[test]
fn too_much_text_is_refused() {
    let told = refusal(&" ".repeat((16 << 20) + 1));
    assert_eq!(told, "1:1: the text is longer than 16 MiB");
    let told = refusal(&format!("[{}]", "a,".repeat(800_000)));
    assert!(told.ends_with("there are more than 750000 keys and values"), "{told}");
    let told =
        refusal(&format!("name: {}\nstep_templates: [{{ name: a }}]", "x".repeat(1_000_000)));
    assert!(told.ends_with("is longer than 255 bytes") && told.len() < 200, "{told}");
}

#[test]
fn a_schema_cannot_be_made_to_hurt() {
    let order =
        |schema: &str| format!("name: o\nstep_templates: [{{ name: a }}]\nschema: {schema}");
    let told = refusal(&order("{ pattern: '[\\p{L}]{9999}' }"));
    assert!(told.contains("the pattern is malformed, too large"), "{told}");
    let told = refusal(&order(&format!("{{ allOf: [{}] }}", "{ pattern: a }, ".repeat(201))));
    assert_eq!(told, "3:9: the schema has more than 200 patterns");
    let told = refusal(&order(&format!("{{ $comment: {} }}", "x".repeat(300_000))));
    assert_eq!(told, "3:9: the schema is longer than 256 KiB");
}

#[test]
fn long_texts_cannot_be_repeated_and_keys_are_short() {
    let text = "x".repeat(1_000_000);
    let config = format!("a: &a {text}\nb: [{}]", "*a, ".repeat(10_000));
    assert!(refusal(&config).ends_with("the aliases repeat too much"));
    let told = refusal(&format!("a: {{ ? {text} : [{}] }}", "1, ".repeat(10_000)));
    assert_eq!(told, "1:8: a key is longer than 1024 bytes");
    let told = refusal(&format!("? &a {text}\n: 1\n"));
    assert_eq!(told, "1:6: a key is longer than 1024 bytes");
}
