//! What a task must look like after a list of events: computed from scratch, slowly and plainly.
//!
//! Shares nothing with the crate but the names of states, so that both cannot be wrong alike. It
//! goes through the events of the whole task in time, where the crate folds each log by itself.

use std::collections::BTreeSet;

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
    pub undoable: bool,
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
    Spared { step: usize },
    Lost,
    Quarantined,
    UndoingBegun,
    Cancelled,
    Paused,
    Resumed,
    Edited,
    Closed,
    Retried,
    RetriedStep { step: usize },
    RetriedFrom { step: usize },
    Resolved { step: usize },
    Skipped { step: usize },
    Limited { step: usize, limit: u32 },
    UndoingOrdered,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepView {
    pub state: StepState,
    pub attempts: u32,
    pub counted: u32,
    pub limit: u32,
    pub fell_back: bool,
    pub ready_at: Option<Timestamp>,
    /// Whether it may be begun, its time come or not.
    pub ready: bool,
    pub has_result: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub steps: Vec<StepView>,
    pub failed: bool,
    pub degraded: bool,
    pub ended: bool,
    pub lost: usize,
    pub undoing: bool,
    /// Whether there is anything to undo.
    pub undoable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    Open,
    Well,
    Failed,
    ByHand,
    Skipped,
}

#[derive(Clone, Debug)]
struct Step {
    came: Came,
    has_result: bool,
    /// Since it was last undone, if it was.
    begun: bool,
    fell_back: bool,
    limit: u32,
    attempts: u32,
    counted: u32,
    ready_at: Option<Timestamp>,
    undone: Option<bool>,
    undo_attempts: u32,
    undo_counted: u32,
    undo_ready_at: Option<Timestamp>,
}

struct Task<'a> {
    rules: &'a [Rule],
    steps: Vec<Step>,
    undoing: bool,
    /// Whether it was quarantined while it was undone.
    stuck: bool,
    cancelled: bool,
    lost: usize,
}

/// Where the task stands; nothing runs.
pub fn view(rules: &[Rule], events: &[Event]) -> View {
    let steps = rules.iter().map(|rule| Step {
        came: Came::Open,
        has_result: false,
        begun: false,
        fell_back: false,
        limit: if rule.retryable { rule.limit } else { 1 },
        attempts: 0,
        counted: 0,
        ready_at: None,
        undone: None,
        undo_attempts: 0,
        undo_counted: 0,
        undo_ready_at: None,
    });
    let steps = steps.collect();
    let mut task = Task { rules, steps, undoing: false, stuck: false, cancelled: false, lost: 0 };
    for event in events {
        task.happens(event);
    }
    task.view()
}

impl Task<'_> {
    fn optional(&self, step: usize) -> bool {
        self.rules[step].on_failure == Reaction::Continue
    }

    fn lets_through(&self, step: usize) -> bool {
        match self.steps[step].came {
            Came::Well | Came::ByHand | Came::Skipped => true,
            Came::Failed => self.optional(step),
            Came::Open => false,
        }
    }

    fn is_free(&self, step: usize) -> bool {
        self.rules[step].parents.iter().all(|parent| self.lets_through(*parent))
    }

    fn may_have_begun(&self, step: usize) -> bool {
        let it = &self.steps[step];
        it.came != Came::Open || it.begun || self.is_free(step)
    }

    fn takes_part(&self, step: usize) -> bool {
        let it = &self.steps[step];
        self.rules[step].undoable
            && match it.came {
                Came::Skipped => it.begun,
                _ => self.may_have_begun(step),
            }
    }

    fn below(&self, step: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        loop {
            let more: Vec<_> = (0..self.rules.len())
                .filter(|it| !found.contains(it))
                .filter(|it| {
                    self.rules[*it].parents.iter().any(|it| *it == step || found.contains(it))
                })
                .collect();
            if more.is_empty() {
                return found;
            }
            found.extend(more);
        }
    }

    fn happens(&mut self, event: &Event) {
        self.lost = if matches!(event, Event::Lost) { self.lost + 1 } else { 0 };
        match *event {
            Event::Succeeded { step } if self.undoing => {
                let it = &mut self.steps[step];
                it.undo_attempts += 1;
                it.undo_counted += 1;
                it.undo_ready_at = None;
                it.undone = Some(true);
            }
            Event::Succeeded { step } => {
                let it = &mut self.steps[step];
                it.attempts += 1;
                it.counted += 1;
                it.ready_at = None;
                it.came = Came::Well;
                it.has_result = true;
                it.begun = true;
            }
            Event::Failed { step, retryable, asked_ms, at } => {
                self.fails(step, retryable, asked_ms, at);
            }
            Event::Spared { step } => {
                let it = &mut self.steps[step];
                if self.undoing {
                    it.undo_attempts += 1;
                    it.undo_ready_at = None;
                } else {
                    it.attempts += 1;
                    it.ready_at = None;
                    it.begun = true;
                }
            }
            Event::Cancelled => self.cancelled = true,
            Event::UndoingBegun | Event::UndoingOrdered => {
                (self.undoing, self.cancelled) = (true, false);
            }
            Event::Retried => self.retried(),
            Event::RetriedStep { step } => {
                // What ran without it may have been cut off.
                let mut all = self.below(step);
                all.retain(|it| self.optional(step) && self.may_have_begun(*it));
                all.insert(step);
                all.into_iter().for_each(|it| self.again(it));
            }
            Event::RetriedFrom { step } => {
                let mut all = self.below(step);
                all.retain(|it| self.may_have_begun(*it));
                all.insert(step);
                all.into_iter().for_each(|it| self.again(it));
            }
            Event::Resolved { step } | Event::Skipped { step } if self.undoing => {
                self.steps[step].undone = Some(true);
                self.steps[step].undo_ready_at = None;
            }
            Event::Resolved { step } => {
                let it = &mut self.steps[step];
                (it.came, it.has_result, it.begun) = (Came::ByHand, true, true);
                it.ready_at = None;
            }
            Event::Skipped { step } => {
                let begun = self.may_have_begun(step);
                let it = &mut self.steps[step];
                (it.came, it.ready_at) = (Came::Skipped, None);
                it.begun |= begun;
            }
            Event::Limited { step, limit } => self.steps[step].limit = limit,
            Event::Quarantined => self.stuck = self.undoing,
            Event::Lost | Event::Paused | Event::Resumed | Event::Edited | Event::Closed => {}
        }
    }

    fn fails(&mut self, step: usize, retryable: bool, asked_ms: i64, at: Timestamp) {
        let rule = &self.rules[step];
        let wait = rule.wait_ms.max(asked_ms.min(MAX_WAIT_MS));
        let next = at + SignedDuration::from_millis(wait);
        let it = &mut self.steps[step];
        if self.undoing {
            it.undo_attempts += 1;
            it.undo_counted += 1;
            it.undo_ready_at = None;
            if retryable && it.undo_counted < it.limit {
                it.undo_ready_at = Some(next);
            } else {
                it.undone = Some(false);
            }
            return;
        }
        it.begun = true;
        it.attempts += 1;
        it.counted += 1;
        it.ready_at = None;
        if retryable && it.counted < it.limit {
            it.ready_at = Some(next);
        } else if rule.on_failure == Reaction::Fallback && !it.fell_back {
            it.fell_back = true;
            it.counted = 0;
        } else {
            it.came = Came::Failed;
        }
    }

    fn retried(&mut self) {
        let all = 0..self.steps.len();
        if self.undoing && self.steps.iter().any(|it| it.undone == Some(false)) {
            let failed = all.filter(|it| self.steps[*it].undone == Some(false));
            return failed.collect::<Vec<_>>().into_iter().for_each(|it| self.again(it));
        }
        if std::mem::take(&mut self.stuck) {
            return;
        }
        let mut again = BTreeSet::new();
        for step in all {
            let it = &self.steps[step];
            if it.undone == Some(true) {
                again.extend(self.below(step).into_iter().filter(|it| self.may_have_begun(*it)));
                again.insert(step);
            }
            if it.came == Came::Failed && !self.optional(step) {
                again.insert(step);
            }
        }
        self.undoing = false;
        again.into_iter().for_each(|it| self.again(it));
    }

    /// It is done, or undone, anew.
    fn again(&mut self, step: usize) {
        let it = &mut self.steps[step];
        if it.undone == Some(false) {
            (it.undone, it.undo_counted, it.undo_ready_at) = (None, 0, None);
            return;
        }
        it.begun = it.undone.is_none() && (it.begun || it.came != Came::Skipped);
        (it.came, it.has_result, it.fell_back) = (Came::Open, false, false);
        (it.counted, it.ready_at) = (0, None);
        (it.undone, it.undo_counted, it.undo_ready_at) = (None, 0, None);
    }

    fn view(&self) -> View {
        let all = || 0..self.steps.len();
        let fatal = |it: usize| match self.undoing {
            true => self.steps[it].undone == Some(false),
            false => self.steps[it].came == Came::Failed && !self.optional(it),
        };
        let degraded = |it: usize| match self.steps[it].came {
            Came::Well => self.steps[it].fell_back,
            Came::Failed => self.optional(it),
            Came::Skipped => true,
            Came::Open | Came::ByHand => false,
        };
        let over = |it: usize| match self.undoing {
            true => !self.takes_part(it) || self.steps[it].undone.is_some(),
            false => self.steps[it].came != Came::Open,
        };
        View {
            steps: all().map(|step| self.step_view(step)).collect(),
            failed: all().any(fatal),
            degraded: !self.cancelled && all().any(degraded),
            ended: all().all(over),
            lost: self.lost,
            undoing: self.undoing,
            undoable: all().any(|it| self.takes_part(it)),
        }
    }

    fn step_view(&self, step: usize) -> StepView {
        let it = &self.steps[step];
        let part = self.undoing && self.takes_part(step);
        let turn = self
            .below(step)
            .into_iter()
            .all(|below| !self.takes_part(below) || self.steps[below].undone == Some(true));
        let state = match (part, it.undone, it.came) {
            (true, None, _) => StepState::Compensating,
            (true, Some(true), _) => StepState::Compensated,
            (true, Some(false), _) | (false, _, Came::Failed) => StepState::Error,
            (false, _, Came::Well) => StepState::Complete,
            (false, _, Came::ByHand) => StepState::ResolvedManually,
            (false, _, Came::Skipped) => StepState::Skipped,
            (false, _, Came::Open) if self.cancelled || self.undoing => StepState::Cancelled,
            (false, _, Came::Open) if self.is_free(step) => StepState::Ready,
            (false, _, Came::Open) => StepState::Blocked,
        };
        let (attempts, counted, ready_at) = match part {
            true => (it.undo_attempts, it.undo_counted, it.undo_ready_at),
            false => (it.attempts, it.counted, it.ready_at),
        };
        let ready = match state {
            StepState::Compensating => turn,
            state => state == StepState::Ready,
        };
        let (limit, fell_back, has_result) = (it.limit, it.fell_back, it.has_result);
        StepView { state, attempts, counted, limit, fell_back, ready_at, ready, has_result }
    }
}
