//! A task as `decide` sees it: the graph, folded with the history.
//!
//! A step's state is nowhere stored; it follows from the rows of its log and from its parents.
//! [`Snapshot::replay`] folds a whole history, `decide` one more row, and both by the same code, so
//! a task that is resumed stands where it stood.

mod step;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub(crate) use self::step::Results;
pub use self::step::Step;
use crate::history::{AfterFailure, Occurrence, Transition};
use crate::store::StoredTask;
use crate::{Json, OnFailure, StepIndex, StepState, TaskId, TaskState, TaskTemplate};

/// What a step waits for that is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// A worker that has its handler.
    Handler,
    /// That the system it depends on takes another call.
    System,
}

/// A task as it stands, in memory.
#[derive(Clone, Debug)]
pub struct Snapshot {
    id: TaskId,
    template: Arc<TaskTemplate>,
    context: Json,
    state: TaskState,
    version: u64,
    ended_at: Option<Timestamp>,
    steps: Vec<Step>,
    results: Results,
    /// Rows in the task's own log.
    seq: u32,
    /// How often in a row a worker was lost with it before anything was recorded.
    lost: u32,
    /// Steps that have not ended.
    open: usize,
    /// Steps that failed for good and take the task with them.
    failed: usize,
    /// Steps that its owner has taken to run.
    running: usize,
    degraded: bool,
    /// Steps whose parents succeeded and that nobody has taken, their time come or not.
    ready: BTreeSet<StepIndex>,
    /// Ready steps that the owner cannot run for want of something.
    parked: Vec<(StepIndex, Want)>,
}

impl Snapshot {
    /// A task that was stored this moment and has no history.
    pub fn fresh(id: TaskId, template: Arc<TaskTemplate>, context: Json, version: u64) -> Self {
        let steps: Vec<_> = (0u32..)
            .zip(template.steps())
            .map(|(index, _)| {
                let waiting_for = template.dag().parents(StepIndex(index)).len() as u32;
                let state = if waiting_for == 0 { StepState::Ready } else { StepState::Blocked };
                Step {
                    state,
                    seq: 0,
                    attempts: 0,
                    counted: 0,
                    ready_at: None,
                    fell_back: false,
                    failure: None,
                    waiting_for,
                }
            })
            .collect();
        let ready = (0u32..)
            .zip(&steps)
            .filter(|(_, step)| step.state == StepState::Ready)
            .map(|(index, _)| StepIndex(index))
            .collect();
        Self {
            id,
            open: steps.len(),
            results: Results::none(steps.len()),
            steps,
            template,
            context,
            version,
            state: TaskState::InProgress,
            ended_at: None,
            seq: 0,
            lost: 0,
            failed: 0,
            running: 0,
            degraded: false,
            ready,
            parked: Vec::new(),
        }
    }

    /// The task that a store read back: its graph folded with its history.
    pub fn replay(stored: &StoredTask) -> Self {
        let template = stored.template.clone();
        let mut task = Self::fresh(stored.id, template, stored.context.clone(), stored.version);
        task.state = stored.state;
        task.ended_at = stored.ended_at;
        for row in &stored.rows {
            task.apply(&row.transition, row.at);
        }
        // The logs are independent of each other but for this: a loss counts as long as nothing
        // was recorded after it.
        let losses = |what: &Occurrence| matches!(what, Occurrence::WorkerLost { .. });
        let settled = stored.rows.iter().filter(|row| !losses(&row.transition.what));
        let settled = settled.map(|row| row.at).max();
        let lost = stored.rows.iter().filter(|row| losses(&row.transition.what));
        task.lost = lost.filter(|row| settled.is_none_or(|at| row.at > at)).count() as u32;
        if matches!(task.state, TaskState::Cancelled) {
            task.cancel_steps();
        }
        task
    }

    /// Folds one more row into the task.
    pub(crate) fn apply(&mut self, row: &Transition, at: Timestamp) {
        let Some(index) = row.step else {
            self.seq = self.seq.max(row.seq);
            return match row.what {
                Occurrence::WorkerLost { .. } => self.lost += 1,
                Occurrence::Retried { .. } => self.lost = 0,
                Occurrence::Cancelled { .. }
                | Occurrence::Quarantined { .. }
                | Occurrence::Reopened
                | Occurrence::Completed { .. }
                | Occurrence::Failed { .. } => {}
            };
        };
        let Some(before) = self.steps.get(index.get()).map(|step| step.state) else {
            // A damaged history must not take down who reads it.
            return;
        };
        self.lost = 0;
        if before == StepState::InProgress {
            self.running = self.running.saturating_sub(1);
        }
        let step = &mut self.steps[index.get()];
        step.seq = step.seq.max(row.seq);
        if row.attempt > 0 {
            step.attempts = step.attempts.max(row.attempt);
            step.counted += 1;
        }
        step.ready_at = None;
        match &row.what {
            Occurrence::Completed { result } => {
                self.results.set(index, result.clone());
                step.failure = None;
                step.state = StepState::Complete;
                self.degraded |= step.fell_back;
                self.open = self.open.saturating_sub(1);
                self.ready.remove(&index);
                self.release_children(index);
            }
            Occurrence::Failed { failure, next } => {
                step.failure = Some(failure.clone());
                match next {
                    AfterFailure::RetryIn(wait) => {
                        step.ready_at = at.checked_add(*wait).ok();
                        self.make_ready(index);
                    }
                    AfterFailure::WaitForSystem => {
                        step.counted -= 1;
                        self.make_ready(index);
                    }
                    AfterFailure::FallBack => {
                        step.fell_back = true;
                        step.counted = 0;
                        self.make_ready(index);
                    }
                    AfterFailure::GiveUp => {
                        step.state = StepState::Error;
                        self.open = self.open.saturating_sub(1);
                        self.ready.remove(&index);
                        if self.template.step(index).on_failure == OnFailure::Continue {
                            self.degraded = true;
                            self.release_children(index);
                        } else {
                            self.failed += 1;
                        }
                    }
                }
            }
            Occurrence::Reopened => {
                step.counted = 0;
                step.fell_back = false;
                self.open += 1;
                self.failed = self.failed.saturating_sub(1);
                self.make_ready(index);
            }
            Occurrence::Retried { .. }
            | Occurrence::Cancelled { .. }
            | Occurrence::WorkerLost { .. }
            | Occurrence::Quarantined { .. } => {}
        }
    }

    fn make_ready(&mut self, index: StepIndex) {
        self.steps[index.get()].state = StepState::Ready;
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

    fn cancel_steps(&mut self) {
        for step in &mut self.steps {
            if !step.state.is_terminal() {
                step.state = StepState::Cancelled;
            }
        }
        self.ready.clear();
        self.parked.clear();
        self.running = 0;
    }

    /// Takes the steps that may run now; they count as running from here on.
    ///
    /// Nothing more is taken once a step has failed for good: what runs ends, and no more begins.
    pub fn take_runnable(&mut self, now: Timestamp) -> Vec<StepIndex> {
        if self.failed > 0 || self.state.is_terminal() {
            return Vec::new();
        }
        let steps = &self.steps;
        let due = |index: &StepIndex| steps[index.get()].ready_at.is_none_or(|at| at <= now);
        let (taken, later): (Vec<_>, Vec<_>) = self.ready.iter().partition(|index| due(index));
        self.ready = later.into_iter().collect();
        self.running += taken.len();
        for index in &taken {
            self.steps[index.get()].state = StepState::InProgress;
        }
        taken
    }

    /// Takes one step that runs already, though the task was read anew.
    pub(crate) fn take(&mut self, index: StepIndex) {
        if self.ready.remove(&index) {
            self.steps[index.get()].state = StepState::InProgress;
            self.running += 1;
        }
    }

    /// Gives back a step that was taken and not run.
    pub fn give_back(&mut self, index: StepIndex) {
        if self.steps[index.get()].state == StepState::InProgress {
            self.running = self.running.saturating_sub(1);
            self.make_ready(index);
        }
    }

    /// Sets aside a step that was taken and that the owner cannot run for want of something.
    pub fn park(&mut self, index: StepIndex, want: Want) {
        if self.steps[index.get()].state == StepState::InProgress {
            self.running = self.running.saturating_sub(1);
            self.steps[index.get()].state = StepState::Ready;
            self.parked.push((index, want));
        }
    }

    /// When the next step that waits for a retry may run.
    pub fn next_due(&self) -> Option<Timestamp> {
        if self.failed > 0 || self.state.is_terminal() {
            // Nothing more will begin.
            return None;
        }
        self.ready.iter().filter_map(|index| self.steps[index.get()].ready_at).min()
    }

    pub(crate) fn set_state(&mut self, state: TaskState) {
        debug_assert!(self.state.may_become(state), "{} may not become {state}", self.state);
        self.state = state;
        if state == TaskState::Cancelled {
            self.cancel_steps();
        }
    }

    /// The next row of the task's own log.
    pub(crate) fn own_row(&self, what: Occurrence) -> Transition {
        Transition { step: None, seq: self.seq + 1, attempt: 0, ran_for: Duration::ZERO, what }
    }

    /// The parents that hold a step up, while it is blocked.
    pub(crate) fn waits_for(&self, index: StepIndex) -> impl Iterator<Item = StepIndex> {
        let parents = self.template.dag().parents(index).iter().copied();
        parents.filter(|parent| match self.steps[parent.get()].state {
            StepState::Complete | StepState::Skipped | StepState::ResolvedManually => false,
            StepState::Error => self.template.step(*parent).on_failure != OnFailure::Continue,
            StepState::Blocked
            | StepState::Ready
            | StepState::InProgress
            | StepState::Cancelled
            | StepState::Compensating
            | StepState::Compensated => true,
        })
    }

    pub(crate) const fn lost(&self) -> u32 {
        self.lost
    }

    pub(crate) const fn open(&self) -> usize {
        self.open
    }

    pub(crate) const fn running(&self) -> usize {
        self.running
    }

    pub(crate) const fn ready(&self) -> &BTreeSet<StepIndex> {
        &self.ready
    }

    pub(crate) fn parked(&self) -> &[(StepIndex, Want)] {
        &self.parked
    }

    /// Whether a step failed for good and takes the task with it.
    pub const fn has_failed(&self) -> bool {
        self.failed > 0
    }

    /// Which task.
    pub const fn id(&self) -> TaskId {
        self.id
    }

    /// What it is made of.
    pub const fn template(&self) -> &Arc<TaskTemplate> {
        &self.template
    }

    /// Its input.
    pub const fn context(&self) -> &Json {
        &self.context
    }

    /// Where it stands.
    pub const fn state(&self) -> TaskState {
        self.state
    }

    /// Whether an optional step failed or a fallback took over.
    pub const fn degraded(&self) -> bool {
        self.degraded
    }

    /// The version that a change to it assumes.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// When it last ended.
    pub const fn ended_at(&self) -> Option<Timestamp> {
        self.ended_at
    }

    /// The steps, in the order of the template.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What a step returned.
    pub fn result(&self, index: StepIndex) -> Option<&Json> {
        self.results.get(index)
    }

    /// The results, shared with the attempts that read them; later results appear in them.
    pub(crate) fn share_results(&self) -> Results {
        Results(self.results.0.clone())
    }

    /// One step.
    ///
    /// # Panics
    /// If the index is of another template.
    pub fn step(&self, index: StepIndex) -> &Step {
        &self.steps[index.get()]
    }
}
