//! The kinds of task that a storm blows through, and their handlers.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Pace;
use super::world::World;
use crate::{
    OnFailure, RetryPolicy, StepContext, StepTemplate, SystemPolicy, TaskTemplate, Workflow,
    step_fn,
};

/// The input of every task.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Input {
    /// Which task of the storm it is.
    pub(super) number: u64,
    /// How it was edited, if it was.
    pub(super) edited: usize,
}

/// The names of the kinds.
pub(super) const KINDS: [&str; 5] = ["chain", "diamond", "fan", "banked", "lonely"];

/// The system that some steps depend on.
pub(super) const BANK: &str = "bank";

fn templates(pace: Pace) -> [TaskTemplate; 5] {
    let step = |name: &str| {
        let again = RetryPolicy::fixed(2, Duration::from_millis(10));
        StepTemplate::new(name).handler("work").retry(again).timeout(pace.timeout)
    };
    let undone = |name: &str| step(name).compensate_with("undo");
    let charge = || {
        let again = RetryPolicy::fixed(3, Duration::from_millis(10));
        undone("charge").dependent_system(BANK).retry(again)
    };
    let policy = SystemPolicy {
        minimum_calls: 3,
        window_calls: 6,
        probe_interval: pace.timeout,
        initial_calls: 2,
        ..SystemPolicy::default()
    };
    let kind = |name: &str| TaskTemplate::builder(name);
    let schema = json!({ "type": "object", "properties": { "edited": { "maximum": 50 } } });
    let [chain, diamond, fan, banked, lonely] = KINDS;
    let chain = kind(chain)
        .schema(schema)
        .deadline(pace.timeout * 4)
        .step(undone("one"))
        .step(undone("two").after("one"))
        .step(undone("three").after("two"));
    let diamond = kind(diamond)
        .step(undone("top"))
        .step(step("left").after("top").on_failure(OnFailure::Continue))
        .step(undone("right").after("top").on_failure(OnFailure::Fallback("spare".to_owned())))
        .step(step("bottom").after_all(["left", "right"]).expected_within(pace.timeout));
    let mut fan =
        kind(fan).system(BANK, policy.clone()).deadline(pace.timeout * 8).step(step("root"));
    for leaf in ["leaf1", "leaf2", "leaf3", "leaf4"] {
        fan = fan.step(undone(leaf).handler("side").after("root").expected_within(pace.timeout));
    }
    let fan = fan.step(charge().after("root"));
    let banked = kind(banked)
        .system(BANK, policy)
        .step(step("check"))
        .step(charge().after("check"))
        .step(undone("receipt").after("charge"));
    let alone = step("alone").retry(RetryPolicy::none()).expected_within(pace.timeout);
    let lonely = kind(lonely).step(alone.on_failure(OnFailure::Continue)).step(step("beside"));
    [chain, diamond, fan, banked, lonely].map(|kind| kind.build().unwrap())
}

/// The kinds of task of a storm, with or without the handler that some steps need.
pub(super) fn all(world: &Arc<World>, lacks_side: bool) -> Vec<Workflow> {
    let work = || {
        let world = world.clone();
        step_fn(move |step: StepContext| world.clone().work(step))
    };
    let workflows = templates(world.pace).map(|template| {
        let workflow = Workflow::new(template);
        let workflow = workflow.step("work", work()).step("undo", work()).step("spare", work());
        if lacks_side { workflow } else { workflow.step("side", work()) }
    });
    workflows.into()
}
