//! What follows from the logs of all steps together: who waits, who may run, what the task is at.

use std::collections::BTreeSet;

use super::{Outcome, Phase, Snapshot, Undone};
use crate::decide::compensate;
use crate::{OnFailure, StepIndex, StepState, TaskState};

impl Snapshot {
    /// Works out anew all that no log says by itself.
    pub(super) fn derive(&mut self) {
        let template = self.template.clone();
        let indices = || (0u32..).map(StepIndex).take(template.steps().len());
        for index in indices() {
            let parents = template.dag().parents(index).iter();
            let waiting_for = parents.filter(|parent| !self.lets_through(**parent)).count();
            self.steps[index.get()].waiting_for = waiting_for as u32;
        }
        (self.open, self.failed, self.degraded) = (0, 0, false);
        self.ready.clear();
        for index in indices() {
            let step = &self.steps[index.get()];
            let optional = self.is_optional(index);
            self.degraded |= match step.outcome() {
                Outcome::Complete => step.fell_back(),
                Outcome::Failed => optional,
                Outcome::Skipped => true,
                Outcome::Open | Outcome::Resolved => false,
            };
        }
        match self.phase {
            Phase::Forward => indices().for_each(|index| self.derive_forward(index)),
            Phase::Compensating => self.derive_compensating(),
        }
        let (steps, ready) = (&self.steps, &mut self.ready);
        self.parked.retain(|(index, _)| ready.remove(index));
        self.running = steps.iter().filter(|step| step.taken).count();
        if self.state == TaskState::Cancelled {
            self.cancel_steps();
        }
    }

    fn derive_forward(&mut self, index: StepIndex) {
        let optional = self.is_optional(index);
        let step = &mut self.steps[index.get()];
        step.undoing = false;
        step.taken &= step.outcome() == Outcome::Open;
        step.state = match step.outcome() {
            Outcome::Complete => StepState::Complete,
            Outcome::Resolved => StepState::ResolvedManually,
            Outcome::Skipped => StepState::Skipped,
            Outcome::Failed => {
                self.failed += usize::from(!optional);
                StepState::Error
            }
            Outcome::Open => {
                self.open += 1;
                if step.taken {
                    StepState::InProgress
                } else if step.waiting_for > 0 {
                    StepState::Blocked
                } else {
                    self.ready.insert(index);
                    StepState::Ready
                }
            }
        };
    }

    fn derive_compensating(&mut self) {
        let template = self.template.clone();
        let numbered = template.steps().iter().zip(&self.steps);
        let part: Vec<_> = numbered.map(|it| compensate::takes_part(it.0, it.1)).collect();
        let waits_below = compensate::waits_below(&template, &self.steps, &part);
        for (at, step) in self.steps.iter_mut().enumerate() {
            step.waits_below = waits_below[at];
            step.undoing = part[at];
            step.taken &= part[at] && step.undone() == Undone::No;
            step.state = match (part[at], step.undone(), step.outcome()) {
                (true, Undone::Yes, _) => StepState::Compensated,
                (true, Undone::Failed, _) => {
                    self.failed += 1;
                    StepState::Error
                }
                (true, Undone::No, _) => {
                    self.open += 1;
                    if step.waits_below == 0 && !step.taken {
                        self.ready.insert(StepIndex(at as u32));
                    }
                    StepState::Compensating
                }
                (false, _, Outcome::Complete) => StepState::Complete,
                (false, _, Outcome::Resolved) => StepState::ResolvedManually,
                (false, _, Outcome::Skipped) => StepState::Skipped,
                (false, _, Outcome::Failed) => StepState::Error,
                // Nothing of the task begins any more.
                (false, _, Outcome::Open) => StepState::Cancelled,
            };
        }
    }

    /// Whether a step no longer holds up those that depend on it.
    fn lets_through(&self, index: StepIndex) -> bool {
        match self.steps[index.get()].outcome() {
            Outcome::Complete | Outcome::Resolved | Outcome::Skipped => true,
            Outcome::Failed => self.is_optional(index),
            Outcome::Open => false,
        }
    }

    pub(crate) fn is_optional(&self, index: StepIndex) -> bool {
        self.template.step(index).on_failure == OnFailure::Continue
    }

    /// The parents that hold a step up, while it is blocked; while it is to be undone, the nearest
    /// of those that are to be undone before it.
    pub(crate) fn waits_for(&self, index: StepIndex) -> Vec<StepIndex> {
        let dag = self.template.dag();
        if !self.steps[index.get()].undoing {
            let parents = dag.parents(index).iter().copied();
            return parents.filter(|parent| !self.lets_through(*parent)).collect();
        }
        let (mut nearest, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut open = vec![index];
        while let Some(next) = open.pop() {
            for &child in dag.children(next) {
                let step = &self.steps[child.get()];
                if step.undoing && step.undone() != Undone::Yes {
                    nearest.insert(child);
                } else if step.waits_below > 0 && seen.insert(child) {
                    open.push(child);
                }
            }
        }
        nearest.into_iter().collect()
    }

    fn cancel_steps(&mut self) {
        // It did not end although a step failed; and a step may have ended while it was cancelled.
        self.degraded = false;
        for step in &mut self.steps {
            step.taken = false;
            if !step.state.is_terminal() {
                step.state = StepState::Cancelled;
            }
        }
        self.ready.clear();
        self.parked.clear();
        self.running = 0;
    }

    /// What follows from the end of an attempt at a step, where nothing was undone or moved by hand:
    /// as [`derive`](Self::derive) would, but without a look at all other steps.
    pub(super) fn follow(&mut self, index: StepIndex) {
        let optional = self.is_optional(index);
        let step = &mut self.steps[index.get()];
        if step.taken {
            step.taken = false;
            self.running = self.running.saturating_sub(1);
        }
        let released = match step.outcome() {
            Outcome::Open => return self.make_ready(index),
            Outcome::Complete => {
                step.state = StepState::Complete;
                self.degraded |= step.fell_back();
                true
            }
            Outcome::Failed => {
                step.state = StepState::Error;
                self.degraded |= optional;
                self.failed += usize::from(!optional);
                optional
            }
            Outcome::Resolved | Outcome::Skipped => return self.derive(),
        };
        self.close(index);
        if released {
            self.release_children(index);
        }
    }

    /// The same for the end of an attempt to undo a step.
    pub(super) fn follow_undoing(&mut self, index: StepIndex) {
        self.untake(index);
        let step = &mut self.steps[index.get()];
        match step.undone() {
            Undone::No => self.make_ready(index),
            Undone::Failed => {
                step.state = StepState::Error;
                self.failed += 1;
                self.close(index);
            }
            Undone::Yes => {
                step.state = StepState::Compensated;
                self.close(index);
                self.release_parents(index);
            }
        }
    }

    fn close(&mut self, index: StepIndex) {
        self.open = self.open.saturating_sub(1);
        self.ready.remove(&index);
        self.parked.retain(|(parked, _)| *parked != index);
    }

    pub(super) fn make_ready(&mut self, index: StepIndex) {
        if !self.steps[index.get()].undoing {
            self.steps[index.get()].state = StepState::Ready;
        }
        self.ready.insert(index);
    }

    /// Tells the children of a step that it no longer holds them up.
    fn release_children(&mut self, index: StepIndex) {
        let template = self.template.clone();
        for &child in template.dag().children(index) {
            let step = &mut self.steps[child.get()];
            step.waiting_for = step.waiting_for.saturating_sub(1);
            if step.waiting_for == 0 && step.state == StepState::Blocked {
                step.state = StepState::Ready;
                self.ready.insert(child);
            }
        }
    }

    /// Tells what a step rests on that it is undone.
    fn release_parents(&mut self, index: StepIndex) {
        let template = self.template.clone();
        let mut open = vec![index];
        while let Some(next) = open.pop() {
            for &parent in template.dag().parents(next) {
                let step = &mut self.steps[parent.get()];
                step.waits_below = step.waits_below.saturating_sub(1);
                if step.waits_below > 0 {
                    continue;
                }
                if !step.undoing || step.undone() == Undone::Yes {
                    open.push(parent);
                } else if step.undone() == Undone::No {
                    self.ready.insert(parent);
                }
            }
        }
    }
}
