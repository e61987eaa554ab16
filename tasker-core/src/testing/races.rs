//! Operators' actions, raced: against the task's owner, a take-over and each other, on any store.
//!
//! Each action is ordered at every stage of a task's life in the moment in which somebody else
//! moves the task, a thousand times against each rival. Whatever the interleaving, the task must
//! stand as if one had come after the other. [`operator_races!`](crate::operator_races) makes a
//! test of each action.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A race fails by panicking.

mod contest;
mod drain;
mod stage;
mod verdict;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Barrier;

use self::contest::{Rival, Side, compete};
use self::stage::{Scene, Stage};
use self::verdict::{Outcome, Verdict};
use super::conformance::Handles;
use crate::store::StateStore;
use crate::{Action, ActionKind, MemoryStore};

/// So many tasks are raced at once, in one commit of each side.
const FIELD: usize = 50;
/// So often at each of ten stages: a thousand races of an action against a rival.
const HEATS: usize = 2;

/// Races one kind of action against every rival, on a store that `fresh` makes.
///
/// On a runtime of its own with several threads, so not from within one.
///
/// # Panics
/// A race ended as no order of the two sides allows, an action that was accepted is not on record
/// once, or a task was lost.
pub fn run<F: Future<Output = Handles>>(kind: ActionKind, fresh: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime for the races");
    runtime.block_on(async {
        let handles = fresh().await;
        for rival in Rival::ALL {
            against(kind, rival, &handles).await;
        }
    });
}

async fn against(kind: ActionKind, rival: Rival, handles: &Handles) {
    let began = Instant::now();
    let (mut ways, mut races) = (BTreeMap::<&str, usize>::new(), 0);
    let others: Vec<_> = ActionKind::ALL.into_iter().filter(|other| *other != kind).collect();
    for (lap, stage) in Stage::ALL.into_iter().enumerate() {
        for heat in 0..HEATS {
            let race = Race {
                stage,
                action: action(kind),
                rival,
                other: action(others[(lap * HEATS + heat) % others.len()]),
            };
            let legal = race.legal_outcomes().await;
            for outcome in race.run(handles, FIELD, heat % 2 == 0).await {
                assert!(
                    legal.contains(&outcome),
                    "{race:?}: no order of the two sides leads to\n  {outcome:?}\nbut\n  {legal:?}"
                );
                *ways.entry(outcome.way()).or_default() += 1;
                races += 1;
            }
        }
    }
    println!("{kind} against {rival:?}: {races} races in {:?}: {ways:?}", began.elapsed());
}

/// What is ordered; steps are those of the [stages](Stage).
fn action(kind: ActionKind) -> Action {
    let (first, middle) = ("first".to_owned(), "middle".to_owned());
    let json = |text: &str| crate::Json::parse(text.to_owned()).unwrap();
    match kind {
        ActionKind::Cancel => Action::Cancel,
        ActionKind::Retry => Action::Retry,
        ActionKind::RetryStep => Action::RetryStep { step: middle },
        ActionKind::RetryFrom => Action::RetryFrom { step: first },
        ActionKind::ResolveStep => Action::ResolveStep { step: middle, result: json("7") },
        ActionKind::SkipStep => Action::SkipStep { step: middle },
        ActionKind::EditContext => Action::EditContext { context: json(r#"{"number":2}"#) },
        ActionKind::Pause => Action::Pause,
        ActionKind::Resume => Action::Resume,
        ActionKind::SetRetryLimit => Action::SetRetryLimit { step: middle, limit: 5 },
        ActionKind::Compensate => Action::Compensate,
        ActionKind::Resolve => Action::Resolve,
    }
}

/// An action at a stage of a task's life, and who else moves the task.
#[derive(Debug)]
struct Race {
    stage: Stage,
    action: Action,
    rival: Rival,
    /// What the rival orders if it is an operator with something else in mind.
    other: Action,
}

impl Race {
    /// How it ends if one side comes after the other, either way, with nobody else about.
    async fn legal_outcomes(&self) -> [Outcome; 2] {
        let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
        let mut outcomes = Vec::new();
        for alice_first in [true, false] {
            let scene = Scene::set(&store, self.stage, 1).await;
            let (alice, rival) = self.sides();
            let (alice, rival) = if alice_first {
                let alice = compete(&store, &scene, &alice, None).await;
                (alice, compete(&store, &scene, &rival, None).await)
            } else {
                let rival = compete(&store, &scene, &rival, None).await;
                (compete(&store, &scene, &alice, None).await, rival)
            };
            let task = store.load(scene.entrants[0].id).await.unwrap().unwrap();
            outcomes.push(Outcome::of(&task, &alice[0], &rival[0]));
        }
        outcomes.try_into().unwrap()
    }

    /// Races some tasks at once, brings them to their end, and says how the races ended.
    async fn run(
        &self,
        Handles { here, there, .. }: &Handles,
        tasks: usize,
        alice_enters_first: bool,
    ) -> Vec<Outcome> {
        let scene = Arc::new(Scene::set(here, self.stage, tasks).await);
        let start = Arc::new(Barrier::new(2));
        let (alice, rival) = self.sides();
        let enter = |store: &Arc<dyn StateStore>, side: Side| {
            let (store, scene, start) = (store.clone(), scene.clone(), start.clone());
            tokio::spawn(async move { compete(&store, &scene, &side, Some(&start)).await })
        };
        // Who enters last mostly wins.
        let sides = if alice_enters_first {
            tokio::try_join!(enter(here, alice.clone()), enter(there, rival))
        } else {
            let (one, other) = (enter(there, rival), enter(here, alice.clone()));
            tokio::try_join!(other, one)
        };
        let (alice_came_to, rival_came_to) = sides.expect("a side of the race broke");

        let mut outcomes = Vec::new();
        let verdicts = alice_came_to.iter().zip(&rival_came_to);
        for (entrant, (one, other)) in scene.entrants.iter().zip(verdicts) {
            let task = there.load(entrant.id).await.unwrap().unwrap();
            let orders = [Some(one), self.rival.operates().then_some(other)];
            let accepted = |verdict: &&Verdict| **verdict == Verdict::Accepted;
            verdict::check_record(&task, orders.into_iter().flatten().filter(accepted).count());
            if *one == Verdict::Accepted {
                verdict::check_repetition(&task, &alice);
            }
            outcomes.push(Outcome::of(&task, one, other));
        }
        drain::to_the_end(there, &scene).await;
        outcomes
    }

    fn sides(&self) -> (Side, Side) {
        let order = |who: &'static str, action: &Action, key: &'static str| Side::Operator {
            who,
            action: action.clone(),
            key,
        };
        let alice = order("alice", &self.action, "alice's");
        let rival = match self.rival {
            Rival::Completes => Side::Owner { succeeds: true },
            Rival::TimesOut => Side::Owner { succeeds: false },
            Rival::IsTakenOver => Side::TakeOver,
            Rival::OrdersTheSame => order("bob", &self.action, "bob's"),
            Rival::OrdersAnother => order("bob", &self.other, "bob's"),
            Rival::Repeats => alice.clone(),
        };
        (alice, rival)
    }
}

/// Makes a test of each kind of action, against the stores that an async function makes.
///
/// ```
/// use tasker_core::MemoryStore;
/// use tasker_core::testing::conformance::Handles;
///
/// async fn fresh() -> Handles {
///     let store = MemoryStore::new();
///     Handles::new(store.clone(), store)
/// }
///
/// tasker_core::operator_races!(fresh);
/// ```
#[macro_export]
macro_rules! operator_races {
    (@tests $fresh:path; $($name:ident $kind:ident,)*) => { $(
        #[test]
        fn $name() {
            $crate::testing::races::run($crate::ActionKind::$kind, $fresh);
        }
    )* };
    ($fresh:path) => { $crate::operator_races! { @tests $fresh;
        cancel_races_everybody Cancel,
        retry_races_everybody Retry,
        retry_step_races_everybody RetryStep,
        retry_from_races_everybody RetryFrom,
        resolve_step_races_everybody ResolveStep,
        skip_step_races_everybody SkipStep,
        edit_context_races_everybody EditContext,
        pause_races_everybody Pause,
        resume_races_everybody Resume,
        set_retry_limit_races_everybody SetRetryLimit,
        compensate_races_everybody Compensate,
        resolve_races_everybody Resolve,
    } };
}
