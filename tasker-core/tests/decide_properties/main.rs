//! `decide` and the snapshot against an oracle that does the same from scratch, slowly.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod oracle;
mod world;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use tasker_core::history::FailureClass;
use tasker_core::{ActionKind, StepState, TaskState};

use oracle::{Reaction, Rule};
use world::{Act, Moves, World};

const CLASSES: [FailureClass; 5] = [
    FailureClass::Retryable,
    FailureClass::Permanent,
    FailureClass::TimedOut,
    FailureClass::Panicked,
    FailureClass::Unstorable,
];

/// Parents of each step, by shape: chains, fans, joins, diamonds in a row, and anything.
fn graphs() -> impl Strategy<Value = Vec<Vec<usize>>> {
    let size = 1..=8usize;
    let chain = |n| (0..n).map(|step: usize| step.checked_sub(1).into_iter().collect()).collect();
    let fan = |n: usize| (0..n).map(|step| if step == 0 { vec![] } else { vec![0] }).collect();
    let join =
        |n: usize| (0..n).map(move |step| if step + 1 == n { (0..step).collect() } else { vec![] });
    let diamonds = |n: usize| {
        let parents = |step: usize| match step % 3 {
            0 => (step.saturating_sub(2)..step).collect(),
            1 => vec![step - 1],
            _ => vec![step - 2],
        };
        (0..n).map(parents).collect()
    };
    let any = vec(any::<u8>(), 1..=8).prop_map(|masks| {
        let parents =
            |(step, mask): (usize, u8)| (0..step).filter(|it| mask >> it & 1 == 1).collect();
        masks.into_iter().enumerate().map(parents).collect()
    });
    prop_oneof![
        1 => size.clone().prop_map(chain),
        1 => size.clone().prop_map(fan),
        1 => size.clone().prop_map(move |n| join(n).collect()),
        1 => size.prop_map(diamonds),
        3 => any,
    ]
}

/// The same graph with its steps written in another order, children perhaps before parents.
fn written_in_any_order(parents: Vec<Vec<usize>>) -> impl Strategy<Value = Vec<Vec<usize>>> {
    let order: Vec<_> = (0..parents.len()).collect();
    Just(order).prop_shuffle().prop_map(move |place| {
        let mut moved = vec![Vec::new(); parents.len()];
        for (step, above) in parents.iter().enumerate() {
            moved[place[step]] = above.iter().map(|parent| place[*parent]).collect();
        }
        moved
    })
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let graph = graphs().prop_flat_map(written_in_any_order);
    graph.prop_flat_map(|parents| {
        let reaction = prop_oneof![
            3 => Just(Reaction::Fail),
            2 => Just(Reaction::Continue),
            2 => Just(Reaction::Fallback),
        ];
        let undoable = prop::bool::weighted(0.4);
        let policy = (prop::bool::weighted(0.8), 1..=3u32, 0..2i64, reaction, undoable);
        let policies = vec(policy, parents.len());
        (Just(parents), policies).prop_map(|(parents, policies)| {
            let rule = |(parents, (retryable, limit, wait, on_failure, undoable))| Rule {
                parents,
                retryable,
                limit,
                wait_ms: wait * 50,
                on_failure,
                undoable,
            };
            parents.into_iter().zip(policies).map(rule).collect()
        })
    })
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let number = any::<u16>();
    let class = prop::sample::select(&CLASSES[..]);
    let orders = prop::sample::select(&ActionKind::ALL[..]);
    vec(
        prop_oneof![
            8 => Just(Act::Claim),
            10 => number.prop_map(Act::Start),
            8 => number.prop_map(Act::Succeed),
            5 => (number, class, 0..500u16).prop_map(|(number, class, asked)| {
                Act::Fail(number, class, asked)
            }),
            2 => number.prop_map(Act::SucceedElsewhere),
            2 => number.prop_map(Act::ReportAgain),
            1 => Just(Act::LoseWorker(1)),
            1 => (8..=11u8).prop_map(Act::LoseWorker),
            1 => Just(Act::HandBack),
            3 => Just(Act::Wait),
            1 => number.prop_map(Act::Spare),
            1 => number.prop_map(Act::Park),
            2 => number.prop_map(|number| Act::Operate(ActionKind::Retry, number)),
            4 => (orders, number).prop_map(|(kind, number)| Act::Operate(kind, number)),
        ],
        0..60,
    )
}

fn run(rules: Vec<Rule>, acts: &[Act]) -> World {
    let mut world = World::new(rules);
    for act in acts {
        world.act(*act);
    }
    world.run_out();
    // What has ended is put back to work, fails at once, and is led to its end again.
    world.act(Act::Operate(ActionKind::Retry, 0));
    world.act(Act::Operate(ActionKind::RetryFrom, 0));
    for act in [Act::Claim, Act::Start(0), Act::Fail(0, FailureClass::Permanent, 0)] {
        world.act(act);
    }
    world.run_out();
    world
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2500,
        max_shrink_iters: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Nothing early, nothing twice, nothing forgotten, never more attempts than allowed, and an
    /// end in any case: see `World` for each claim.
    #[test]
    fn a_task_goes_as_the_oracle_says(rules in rules(), acts in acts()) {
        run(rules, &acts);
    }
}

#[test]
fn every_allowed_move_is_made_and_no_other() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut all = Moves::default();
    for _ in 0..1000 {
        let case = (rules(), acts()).new_tree(&mut runner).unwrap().current();
        let world = run(case.0, &case.1);
        all.tasks.extend(world.moves.tasks);
        all.steps.extend(world.moves.steps);
    }
    let tasks = TaskState::ALL.into_iter().flat_map(|from| TaskState::ALL.map(|to| (from, to)));
    let missing: Vec<_> =
        tasks.filter(|it| it.0.may_become(it.1) != all.tasks.contains(it)).collect();
    assert_eq!(missing, [], "of tasks");
    let steps = StepState::ALL.into_iter().flat_map(|from| StepState::ALL.map(|to| (from, to)));
    let missing: Vec<_> =
        steps.filter(|it| it.0.may_become(it.1) != all.steps.contains(it)).collect();
    assert_eq!(missing, [], "of steps");
}
