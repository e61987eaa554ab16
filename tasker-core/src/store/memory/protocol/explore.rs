//! Explores every state that a model can reach, breadth first, so that a trace is a shortest one.

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Something that may do one of several things next.
pub(super) trait Model: Clone + Hash {
    /// One thing that may happen.
    type Action: Copy + Debug;

    /// What may happen now.
    fn actions(&self) -> Vec<Self::Action>;

    /// Lets it happen; an error says which promise was broken.
    fn step(&mut self, action: Self::Action) -> Result<(), String>;

    /// Whether this is where all ways must be able to lead.
    fn is_goal(&self) -> bool;
}

/// A promise that was broken, and the shortest way there.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) promise: String,
    pub(super) trace: String,
}

/// Counts the states that can be reached from `start`.
///
/// # Errors
/// A step broke a promise, or a state cannot reach a goal any more.
pub(super) fn explore<M: Model>(start: M) -> Result<usize, Violation> {
    let mut seen = HashMap::from([(digest(&start), 0usize)]);
    let mut came_from: Vec<Option<(usize, M::Action)>> = vec![None];
    let mut leads_to: Vec<(usize, usize)> = Vec::new();
    let mut goals = Vec::new();
    let mut level = vec![(0, start)];
    while !level.is_empty() {
        let mut next_level = Vec::new();
        for (index, state) in level {
            if state.is_goal() {
                goals.push(index);
            }
            for action in state.actions() {
                let mut next = state.clone();
                if let Err(promise) = next.step(action) {
                    let trace = trace(&came_from, index) + &format!("\n  {action:?}");
                    return Err(Violation { promise, trace });
                }
                let new = came_from.len();
                let found = *seen.entry(digest(&next)).or_insert(new);
                if found == new {
                    came_from.push(Some((index, action)));
                    next_level.push((new, next));
                }
                leads_to.push((index, found));
            }
        }
        level = next_level;
    }
    if let Some(stuck) = cannot_reach(&goals, &leads_to, came_from.len()) {
        let promise = "no way leads to the end of the task".to_owned();
        return Err(Violation { promise, trace: trace(&came_from, stuck) });
    }
    Ok(came_from.len())
}

/// The first state from which no goal can be reached.
fn cannot_reach(goals: &[usize], leads_to: &[(usize, usize)], states: usize) -> Option<usize> {
    let mut before = vec![Vec::new(); states];
    for (from, to) in leads_to {
        before[*to].push(*from);
    }
    let mut reaches = vec![false; states];
    let mut open = goals.to_vec();
    while let Some(state) = open.pop() {
        if !std::mem::replace(&mut reaches[state], true) {
            open.extend(&before[state]);
        }
    }
    reaches.iter().position(|reaches| !reaches)
}

fn digest(state: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

fn trace<A: Debug>(came_from: &[Option<(usize, A)>], mut index: usize) -> String {
    let mut actions = Vec::new();
    while let Some((before, action)) = &came_from[index] {
        actions.push(action);
        index = *before;
    }
    actions.iter().rev().fold(String::new(), |mut text, action| {
        let _ = write!(text, "\n  {action:?}");
        text
    })
}
