//! A task as `decide` sees it: the graph, folded with the history.
//!
//! A step's state is nowhere stored; it follows from the rows of its log and from its parents.
//! [`Snapshot::replay`] folds a whole history, `decide` one more row, and both by the same code, so
//! a task that is resumed stands where it stood.

mod derive;
mod fold;
mod step;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use self::step::Step;
pub(crate) use self::step::{Outcome, Results, Undone};
use crate::history::{Occurrence, OrderKey, Transition};
use crate::{Json, StepIndex, StepState, TaskId, TaskState, TaskTemplate};

/// Which way a task goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its steps run.
    Forward,
    /// What its steps did is undone.
    Compensating,
}

/// What a step waits for that is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// A worker that has its handler.
    Handler,
    /// That the system it depends on takes calls again.
    System,
    /// That the system it depends on takes another call: there are as many as it bears.
    Turn,
}

/// A task as it stands, in memory.
#[derive(Clone, Debug)]
pub struct Snapshot {
    id: TaskId,
    template: Arc<TaskTemplate>,
    context: Json,
    state: TaskState,
    version: u64,
    /// When it was stored, if that is known, or long ago.
    created_at: Timestamp,
    ended_at: Option<Timestamp>,
    /// While it is queued: when it may be claimed.
    wake_at: Option<Timestamp>,
    steps: Vec<Step>,
    results: Results,
    /// Rows in the task's own log.
    seq: u32,
    phase: Phase,
    /// Until when it was not to start, when it was paused.
    held_until: Option<Timestamp>,
    /// The orders that operators gave a key.
    orders: Vec<OrderKey>,
    /// How often what a step did was undone, all together.
    rounds: u32,
    /// How often in a row a worker was lost with it before anything was recorded.
    lost: u32,
    /// Steps that have not ended; while it compensates, those that are to be undone.
    open: usize,
    /// Steps that failed for good and take the task with them; while it compensates, those that
    /// could not be undone.
    failed: usize,
    /// Steps that its owner has taken to run.
    running: usize,
    degraded: bool,
    /// What is on record of that.
    marked_degraded: bool,
    /// Steps whose parents succeeded and that nobody has taken, their time come or not.
    ready: BTreeSet<StepIndex>,
    /// Ready steps that the owner cannot run for want of something.
    parked: Vec<(StepIndex, Want)>,
}

impl Snapshot {
    /// A task that was stored this moment and has no history.
    pub fn fresh(id: TaskId, template: Arc<TaskTemplate>, context: Json, version: u64) -> Self {
        let mut task = Self::blank(id, template, context, version);
        task.derive();
        task
    }

    /// The same task, given when it was stored.
    pub(crate) fn stored_at(self, created_at: Timestamp) -> Self {
        Self { created_at, ..self }
    }

    fn blank(id: TaskId, template: Arc<TaskTemplate>, context: Json, version: u64) -> Self {
        let steps = vec![Step::new(); template.steps().len()];
        Self {
            id,
            open: steps.len(),
            results: Results::none(steps.len()),
            steps,
            template,
            context,
            version,
            created_at: Timestamp::UNIX_EPOCH,
            state: TaskState::InProgress,
            ended_at: None,
            wake_at: None,
            seq: 0,
            phase: Phase::Forward,
            held_until: None,
            orders: Vec::new(),
            rounds: 0,
            lost: 0,
            failed: 0,
            running: 0,
            degraded: false,
            marked_degraded: false,
            ready: BTreeSet::new(),
            parked: Vec::new(),
        }
    }

    /// Takes the steps that may run now; they count as running from here on.
    ///
    /// Nothing more is taken once a step has failed for good: what runs ends, and no more begins.
    pub fn take_runnable(&mut self, now: Timestamp) -> Vec<StepIndex> {
        if self.failed > 0 || self.state.is_terminal() {
            return Vec::new();
        }
        let steps = &self.steps;
        let due = |index: &StepIndex| steps[index.get()].ready_at().is_none_or(|at| at <= now);
        let (taken, later): (Vec<_>, Vec<_>) = self.ready.iter().partition(|index| due(index));
        self.ready = later.into_iter().collect();
        for index in &taken {
            self.mark_taken(*index);
        }
        taken
    }

    /// Takes one step that runs already, though the task was read anew.
    pub(crate) fn take(&mut self, index: StepIndex) {
        if self.ready.remove(&index) {
            self.mark_taken(index);
        }
    }

    fn mark_taken(&mut self, index: StepIndex) {
        let step = &mut self.steps[index.get()];
        step.taken = true;
        if !step.undoing {
            step.state = StepState::InProgress;
        }
        self.running += 1;
    }

    /// Gives back a step that was taken and not run.
    pub fn give_back(&mut self, index: StepIndex) {
        if self.untake(index) {
            self.make_ready(index);
        }
    }

    /// Sets aside a step that was taken and that the owner cannot run for want of something.
    pub fn park(&mut self, index: StepIndex, want: Want) {
        if self.untake(index) {
            self.make_ready(index);
            self.ready.remove(&index);
            self.parked.push((index, want));
        }
    }

    fn untake(&mut self, index: StepIndex) -> bool {
        let was_taken = std::mem::take(&mut self.steps[index.get()].taken);
        self.running = self.running.saturating_sub(usize::from(was_taken));
        was_taken
    }

    /// When the next step that waits for a retry may run.
    pub fn next_due(&self) -> Option<Timestamp> {
        if self.failed > 0 || self.state.is_terminal() {
            // Nothing more will begin.
            return None;
        }
        self.ready.iter().filter_map(|index| self.steps[index.get()].ready_at()).min()
    }

    pub(crate) fn set_state(&mut self, state: TaskState) {
        debug_assert!(
            self.state == state || self.state.may_become(state),
            "{} may not become {state}",
            self.state
        );
        let was_cancelled = self.state == TaskState::Cancelled;
        self.state = state;
        let turned = self.turn(state);
        if turned || was_cancelled || state == TaskState::Cancelled {
            self.derive();
        }
    }

    /// Goes the way that a state stands for; false if it is on that way already.
    fn turn(&mut self, state: TaskState) -> bool {
        let phase = match state {
            TaskState::Pending => Phase::Forward,
            TaskState::Compensating => Phase::Compensating,
            TaskState::InProgress
            | TaskState::Paused
            | TaskState::Complete
            | TaskState::Error
            | TaskState::Cancelled
            | TaskState::Compensated
            | TaskState::ResolvedManually => return false,
        };
        std::mem::replace(&mut self.phase, phase) != phase
    }

    /// The next row of the task's own log.
    pub(crate) fn own_row(&self, what: Occurrence) -> Transition {
        Transition { step: None, seq: self.seq + 1, attempt: 0, ran_for: Duration::ZERO, what }
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

    pub(crate) const fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) const fn wake_at(&self) -> Option<Timestamp> {
        self.wake_at
    }

    pub(crate) const fn held_until(&self) -> Option<Timestamp> {
        self.held_until
    }

    /// The order that an operator gave this key.
    pub(crate) fn order(&self, key: &str) -> Option<&OrderKey> {
        self.orders.iter().find(|order| order.key == key)
    }

    /// All attempts of one count at a step together, the first included: as the template says,
    /// unless an operator changed it.
    pub fn retry_limit(&self, index: StepIndex) -> u32 {
        let limit = self.steps[index.get()].limit();
        limit.unwrap_or_else(|| self.template.step(index).retry.most_attempts())
    }

    /// How often what a step rests on, or what it did itself, was undone: what it does from then on
    /// is another deed for the world outside.
    pub(crate) fn round(&self, index: StepIndex) -> u32 {
        if self.rounds == 0 {
            return 0;
        }
        let dag = self.template.dag();
        let mut sum = self.steps[index.get()].rounds();
        // Every start of a step that runs again comes by here: a set would be too slow.
        let mut seen = vec![false; self.steps.len()];
        let mut open = dag.parents(index).to_vec();
        while let Some(above) = open.pop() {
            if !std::mem::replace(&mut seen[above.get()], true) {
                sum += self.steps[above.get()].rounds();
                open.extend_from_slice(dag.parents(above));
            }
        }
        sum
    }

    /// Whether a step failed for good and takes the task with it; while the task compensates,
    /// whether a step could not be undone.
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

    /// Its input, as an operator last edited it.
    pub const fn context(&self) -> &Json {
        &self.context
    }

    /// Where it stands.
    pub const fn state(&self) -> TaskState {
        self.state
    }

    /// Whether an optional step failed, a fallback took over, or an operator skipped a step; never
    /// once it is cancelled.
    pub const fn degraded(&self) -> bool {
        self.degraded
    }

    /// What is to be put on record of whether it is degraded, if that is not there.
    pub(crate) fn mark_degraded(&mut self) -> Option<bool> {
        let before = std::mem::replace(&mut self.marked_degraded, self.degraded);
        (before != self.degraded).then_some(self.degraded)
    }

    /// The version that a change to it assumes.
    pub const fn version(&self) -> u64 {
        self.version
    }

    pub(crate) const fn created_at(&self) -> Timestamp {
        self.created_at
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
