//! The graph and its pictures.

use tasker_core::{StepIndex, StepTemplate, TaskTemplate};

fn diamond() -> TaskTemplate {
    TaskTemplate::builder("order")
        .step(StepTemplate::new("ship").after_all(["charge", "pack"]))
        .step(StepTemplate::new("pack").after("reserve"))
        .step(StepTemplate::new("reserve"))
        .step(StepTemplate::new("charge").after("check"))
        .step(StepTemplate::new("check").after("reserve"))
        .build()
        .unwrap()
}

#[test]
fn a_diamond_is_resolved() {
    let order = diamond();
    let names = |steps: &[StepIndex]| -> Vec<&str> {
        steps.iter().map(|step| order.step(*step).name.as_str()).collect()
    };
    let dag = order.dag();
    let levels: Vec<_> = dag.levels().iter().map(|level| names(level)).collect();
    assert_eq!(levels, [vec!["reserve"], vec!["pack", "check"], vec!["charge"], vec!["ship"]]);
    assert_eq!(names(&dag.critical_path()), ["reserve", "check", "charge", "ship"]);
    assert_eq!(names(&dag.roots().collect::<Vec<_>>()), ["reserve"]);
    assert_eq!(names(dag.parents(StepIndex(0))), ["charge", "pack"]);
    assert_eq!(names(dag.children(StepIndex(2))), ["pack", "check"]);
    let above: Vec<_> = dag.ancestors(StepIndex(3)).into_iter().collect();
    assert_eq!(names(&above), ["reserve", "check"]);
    let order = dag.topological_order();
    let place = |step: &StepIndex| order.iter().position(|other| other == step);
    assert!(order.iter().all(|step| dag.parents(*step).iter().all(|up| place(up) < place(step))));
}

#[test]
fn every_knot_is_told_once() {
    let told = TaskTemplate::builder("o")
        .step(StepTemplate::new("after").after("b"))
        .step(StepTemplate::new("b").after_all(["root", "d"]))
        .step(StepTemplate::new("c").after("b"))
        .step(StepTemplate::new("d").after("c"))
        .step(StepTemplate::new("x").after("y"))
        .step(StepTemplate::new("y").after("x"))
        .step(StepTemplate::new("root"))
        .build()
        .unwrap_err()
        .to_string();
    let expected = "\
/step_templates/1/depends_on_steps/1: the steps wait for each other: b -> d -> c -> b
/step_templates/4/depends_on_steps/0: the steps wait for each other: x -> y -> x";
    assert_eq!(told, expected);
}

#[test]
fn pictures_keep_odd_names_in_their_labels() {
    let order = TaskTemplate::builder("order")
        .step(StepTemplate::new("say \"hi\"; <b>`x`</b> \\ #1"))
        .step(StepTemplate::new("späť").after("say \"hi\"; <b>`x`</b> \\ #1"))
        .build()
        .unwrap();
    let mermaid = "flowchart TD
    s0[\"say #34;hi#34;#59; #60;b#62;#96;x#96;#60;#47;b#62; #92; #35;1\"]
    s1[\"späť\"]
    s0 --> s1
";
    assert_eq!(order.to_mermaid(), mermaid);
    let dot = r#"digraph {
    0 [ label = "say \"hi\"; <b>`x`</b> \\ #1" ]
    1 [ label = "späť" ]
    0 -> 1 [ ]
}
"#;
    assert_eq!(order.to_dot(), dot);
}
