//! What a task must look like after a list of events: computed from scratch, slowly and plainly.
//!
//! Shares nothing with the crate but the names of states, so that both cannot be wrong alike.

use jiff::{SignedDuration, Timestamp};
use tasker_core::StepState;

/// What the oracle knows of a step.
#[derive(Clone, Debug)]
pub struct Rule {
    pub parents: Vec<usize>,
    pub retryable: bool,
    pub limit: u32,
    pub wait_ms: i64,
    pub on_failure: Reaction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    Fail,
    Continue,
    Fallback,
}

/// No wait is longer.
pub const MAX_WAIT_MS: i64 = 200;

#[derive(Clone, Debug)]
pub enum Event {
    Succeeded { step: usize },
    Failed { step: usize, retryable: bool, asked_ms: i64, at: Timestamp },
    Lost,
    Quarantined,
    Retried,
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepView {
    pub state: StepState,
    pub attempts: u32,
    pub counted: u32,
    pub fell_back: bool,
    pub ready_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub steps: Vec<StepView>,
    pub failed: bool,
    pub degraded: bool,
    pub ended: bool,
    pub lost: usize,
}

/// Where the task stands; nothing runs.
pub fn view(rules: &[Rule], events: &[Event]) -> View {
    let own: Vec<_> = (0..rules.len()).map(|step| alone(&rules[step], step, events)).collect();
    let lets_through = |step: usize| match own[step].state {
        StepState::Complete => true,
        StepState::Error => rules[step].on_failure == Reaction::Continue,
        _ => false,
    };
    let cancelled = events.iter().any(|event| matches!(event, Event::Cancelled));
    let mut steps = own.clone();
    for (step, seen) in steps.iter_mut().enumerate() {
        let ended = matches!(seen.state, StepState::Complete | StepState::Error);
        if !ended && cancelled {
            seen.state = StepState::Cancelled;
        } else if !ended && !rules[step].parents.iter().all(|parent| lets_through(*parent)) {
            seen.state = StepState::Blocked;
        }
    }
    let optional = |step: usize| rules[step].on_failure == Reaction::Continue;
    let numbered = || own.iter().enumerate();
    let error = |seen: &StepView| seen.state == StepState::Error;
    View {
        failed: numbered().any(|(step, seen)| error(seen) && !optional(step)),
        degraded: numbered().any(|(step, seen)| match seen.state {
            StepState::Complete => seen.fell_back,
            StepState::Error => optional(step),
            _ => false,
        }),
        ended: own.iter().all(|seen| matches!(seen.state, StepState::Complete | StepState::Error)),
        lost: events.iter().rev().take_while(|event| matches!(event, Event::Lost)).count(),
        steps,
    }
}

/// A step by its own events, as if its parents had succeeded.
fn alone(rule: &Rule, index: usize, events: &[Event]) -> StepView {
    let mut seen = StepView {
        state: StepState::Ready,
        attempts: 0,
        counted: 0,
        fell_back: false,
        ready_at: None,
    };
    for event in events {
        match event {
            Event::Succeeded { step } if *step == index => {
                seen.attempts += 1;
                seen.counted += 1;
                seen.ready_at = None;
                seen.state = StepState::Complete;
            }
            Event::Failed { step, retryable, asked_ms, at } if *step == index => {
                seen.attempts += 1;
                seen.counted += 1;
                seen.ready_at = None;
                if *retryable && rule.retryable && seen.counted < rule.limit {
                    let wait = rule.wait_ms.max((*asked_ms).min(MAX_WAIT_MS));
                    seen.ready_at = Some(*at + SignedDuration::from_millis(wait));
                } else if rule.on_failure == Reaction::Fallback && !seen.fell_back {
                    seen.fell_back = true;
                    seen.counted = 0;
                } else {
                    seen.state = StepState::Error;
                }
            }
            Event::Retried
                if seen.state == StepState::Error && rule.on_failure != Reaction::Continue =>
            {
                seen.state = StepState::Ready;
                seen.counted = 0;
                seen.fell_back = false;
            }
            Event::Succeeded { .. }
            | Event::Failed { .. }
            | Event::Lost
            | Event::Quarantined
            | Event::Retried
            | Event::Cancelled => {}
        }
    }
    seen
}
