//! The whole system as a model: the real store, two workers, an operator and what may go wrong.
//!
//! A commit takes effect in two moves, as in a database: first the lease is checked, and with it
//! what a change assumes of rows that it does not write; then it writes. In between, the fence
//! keeps away whoever would take the task from its owner. Time stands still but for [`Action::Tick`].

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::super::state::State;
use super::explore::Model;
use super::promises;
use super::worker::{Attempt, Borrowed, Progress, Stage, Transaction, Worker};
use crate::decide::{self, Order};
use crate::snapshot::Snapshot;
use crate::store::{Heartbeat, NewTask, Route, StoredTask, TaskChange, Then};
use crate::{Json, Priority, RetryPolicy, StepIndex, StepTemplate, TaskId, TaskTemplate, WorkerId};

/// How often something may go wrong, so that there is an end to what can happen.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct Faults {
    /// Workers that forget everything; a commit under way may still take effect.
    pub(super) crashes: u8,
    /// Living workers whose lease runs out.
    pub(super) stalls: u8,
    /// Answers to claims and commits that get lost.
    pub(super) lost_answers: u8,
    /// Attempts at `left` that fail; the second one fails for good.
    pub(super) failures: u8,
    /// Steps that are offered though their owner could run them.
    pub(super) offers: u8,
    /// Successes that handlers record themselves.
    pub(super) recordings: u8,
    pub(super) cancels: u8,
    pub(super) retries: u8,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Register { worker: usize },
    Claim { worker: usize, answer_lost: bool },
    Reload { worker: usize },
    Start { worker: usize, step: StepIndex },
    Offer { worker: usize, step: StepIndex },
    StartOffered { worker: usize, at: usize },
    End { worker: usize, attempt: Attempt, succeeded: bool },
    EndOffered { worker: usize, at: usize, succeeded: bool },
    Record { worker: usize, attempt: Attempt, answer_lost: bool },
    RecordOffered { worker: usize, at: usize, answer_lost: bool },
    Commit { worker: usize },
    CommitOffered { worker: usize, at: usize },
    TakeEffect { worker: usize },
    Answer { worker: usize },
    LoseAnswer { worker: usize },
    WakeUp { worker: usize },
    Crash { worker: usize },
    TakeEffectLate,
    RollBackLate,
    TakeOver { incarnation: u8 },
    Tick,
    LookToCancel,
    LookToRetry,
    Operate,
}

#[derive(Clone)]
pub(super) struct System {
    pub(super) store: State,
    pub(super) task: TaskId,
    pub(super) routes: Arc<std::collections::BTreeSet<Route>>,
    pub(super) workers: [Option<Worker>; 2],
    pub(super) incarnations: u8,
    /// Commits of workers that have crashed since, or of handlers that did not hear of their end.
    pub(super) late: Vec<Transaction>,
    /// What an operator decided from what it read.
    pub(super) operator: Option<TaskChange>,
    pub(super) faults: Faults,
    pub(super) ticks: u8,
    /// The steps that have been seen to become ready.
    pub(super) became_ready: u8,
}

/// The step that may fail.
const LEFT: StepIndex = StepIndex(1);
const LEASE: Duration = Duration::from_secs(1_000_000);
const WAIT: Duration = Duration::from_secs(60);

impl System {
    /// A diamond that nobody has claimed.
    pub(super) fn new(faults: Faults) -> Self {
        let policy = RetryPolicy::fixed(2, WAIT);
        let template = TaskTemplate::builder("diamond")
            .step(StepTemplate::new("top").retry(policy))
            .step(StepTemplate::new("left").after("top").retry(policy))
            .step(StepTemplate::new("right").after("top").retry(policy))
            .step(StepTemplate::new("bottom").after_all(["left", "right"]).retry(policy))
            .build();
        let template = Arc::new(template.unwrap());
        let handlers =
            template.steps().iter().map(|step| Route::to_handler(&template, &step.handler));
        let routes = handlers.chain([Route::of(&template)]).collect();
        let task = TaskId::from(uuid::Uuid::from_u128(1));
        let mut store = State::default();
        let new = NewTask {
            id: task,
            template,
            context: Json::null(),
            idempotency_key: None,
            delay: Duration::ZERO,
            priority: Priority::Normal,
        };
        store.create(vec![new], None, Timestamp::UNIX_EPOCH);
        Self {
            store,
            task,
            routes: Arc::new(routes),
            workers: [None, None],
            incarnations: 0,
            late: Vec::new(),
            operator: None,
            faults,
            ticks: 0,
            became_ready: 0,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + WAIT * u32::from(self.ticks)
    }

    pub(super) fn stored(&self) -> StoredTask {
        self.store.load(self.task, self.now()).unwrap()
    }

    fn version(&self) -> u64 {
        self.store.version(self.task)
    }

    /// Whether the fence keeps a worker's tasks with it for now.
    fn is_fenced(&self, worker: WorkerId) -> bool {
        let living = self.workers.iter().flatten().filter_map(|worker| worker.commit.as_ref());
        let mut open =
            living.chain(&self.late).filter(|commit| matches!(commit.stage, Stage::Begun { .. }));
        self.store.guards.fence && open.any(|commit| commit.author == worker)
    }

    fn is_waiting(&self) -> bool {
        let now = self.now();
        let held = self.workers.iter().flatten().filter_map(|worker| worker.held.as_ref());
        let held = held.filter_map(|held| held.snapshot.next_due());
        self.stored().wake_at.into_iter().chain(held).any(|at| at > now)
    }

    /// Something that concerns one worker's memory alone and comes about in any case.
    ///
    /// Whatever others do meanwhile, it has the same effect before and after: one order will do.
    fn private_action(&self) -> Option<Action> {
        let spent = (1..=self.incarnations).find(|&incarnation| {
            let id = name(incarnation);
            let dead = self.workers.iter().flatten().all(|worker| worker.id != id);
            dead && self.store.has_worker(id) && !self.store.has_work(id) && !self.is_fenced(id)
        });
        if let Some(incarnation) = spent {
            return Some(Action::TakeOver { incarnation });
        }
        self.workers.iter().enumerate().find_map(|(worker, it)| {
            let Some(it) = it else { return Some(Action::Register { worker }) };
            let done = it.commit.as_ref().is_some_and(|it| matches!(it.stage, Stage::Done(_)));
            if done && self.faults.lost_answers == 0 {
                return Some(Action::Answer { worker });
            }
            let queued = |borrowed: &Borrowed| borrowed.progress == Progress::Queued;
            if let Some(at) = it.borrowed.iter().position(queued) {
                return Some(Action::StartOffered { worker, at });
            }
            let held = it.held.as_ref().filter(|held| it.commit.is_none() && !held.stale)?;
            let step = *held.queue.first().filter(|_| self.faults.offers == 0)?;
            Some(Action::Start { worker, step })
        })
    }

    fn worker_actions(&self, worker: usize, actions: &mut Vec<Action>) {
        let Some(it) = &self.workers[worker] else { return };
        let may_lose = self.faults.lost_answers > 0;
        if self.faults.crashes > 0 && self.store.has_work(it.id) {
            actions.push(Action::Crash { worker });
        }
        for (at, borrowed) in it.borrowed.iter().enumerate() {
            match borrowed.progress {
                Progress::Queued => actions.push(Action::StartOffered { worker, at }),
                Progress::Running => {
                    actions.push(Action::EndOffered { worker, at, succeeded: true });
                    if borrowed.attempt.0 == LEFT && self.faults.failures > 0 {
                        actions.push(Action::EndOffered { worker, at, succeeded: false });
                    }
                    if self.faults.recordings > 0 {
                        let record =
                            |answer_lost| Action::RecordOffered { worker, at, answer_lost };
                        actions.extend([record(false), record(true)]);
                    }
                }
                Progress::Ended { .. } if it.commit.is_none() => {
                    actions.push(Action::CommitOffered { worker, at });
                }
                Progress::Ended { .. } => {}
            }
        }
        for &attempt in it.held.iter().flat_map(|held| &held.running) {
            actions.push(Action::End { worker, attempt, succeeded: true });
            if attempt.0 == LEFT && self.faults.failures > 0 {
                actions.push(Action::End { worker, attempt, succeeded: false });
            }
            if self.faults.recordings > 0 {
                let record = |answer_lost| Action::Record { worker, attempt, answer_lost };
                actions.extend([record(false), record(true)]);
            }
        }
        match &it.commit {
            Some(Transaction { stage: Stage::Begun { .. }, change, .. }) => {
                // What moves the task waits for whoever has checked that it has not moved.
                if change.then == Then::Keep || self.late.is_empty() {
                    actions.push(Action::TakeEffect { worker });
                }
                return;
            }
            Some(_) => {
                actions.push(Action::Answer { worker });
                if may_lose {
                    actions.push(Action::LoseAnswer { worker });
                }
                return;
            }
            None => {}
        }
        if worker > 0 && self.version() == 0 {
            // The workers are alike: the first one comes first.
            return;
        }
        actions.push(Action::Claim { worker, answer_lost: false });
        if may_lose {
            actions.push(Action::Claim { worker, answer_lost: true });
        }
        let Some(held) = &it.held else { return };
        if held.stale {
            return actions.push(Action::Reload { worker });
        }
        for &step in &held.queue {
            actions.push(Action::Start { worker, step });
            let may_offer = !held.snapshot.has_failed() && !held.in_doubt.contains(&step);
            if self.faults.offers > 0 && may_offer {
                actions.push(Action::Offer { worker, step });
            }
        }
        if held.pending {
            actions.push(Action::Commit { worker });
        }
        if held.snapshot.next_due().is_some_and(|at| at <= self.now()) {
            actions.push(Action::WakeUp { worker });
        }
    }
}

impl Model for System {
    type Action = Action;

    fn actions(&self) -> Vec<Action> {
        if let Some(action) = self.private_action() {
            return vec![action];
        }
        let mut actions = Vec::new();
        for worker in [0, 1] {
            self.worker_actions(worker, &mut actions);
        }
        if !self.late.is_empty() {
            actions.extend([Action::TakeEffectLate, Action::RollBackLate]);
        }
        for incarnation in 1..=self.incarnations {
            let id = name(incarnation);
            let lives = self.workers.iter().flatten().any(|worker| worker.id == id);
            let expires = self.store.has_work(id) && (!lives || self.faults.stalls > 0);
            if expires && !self.is_fenced(id) {
                actions.push(Action::TakeOver { incarnation });
            }
        }
        if self.is_waiting() {
            actions.push(Action::Tick);
        }
        let stored = self.stored();
        match &self.operator {
            Some(_) if stored.owner.is_some_and(|owner| self.is_fenced(owner)) => {}
            Some(_) => actions.push(Action::Operate),
            None => {
                if self.faults.cancels > 0 && stored.state.may_become(crate::TaskState::Cancelled) {
                    actions.push(Action::LookToCancel);
                }
                if self.faults.retries > 0 && stored.state.may_become(crate::TaskState::Pending) {
                    actions.push(Action::LookToRetry);
                }
            }
        }
        actions
    }

    fn step(&mut self, action: Action) -> Result<(), String> {
        let before = self.stored();
        match action {
            Action::Register { worker } => {
                self.incarnations += 1;
                let id = name(self.incarnations);
                self.store.renew(&heartbeat(id, LEASE), self.now());
                self.workers[worker] = Some(Worker::new(id));
            }
            Action::Claim { worker, answer_lost } => self.claim(worker, answer_lost)?,
            Action::Reload { worker } => {
                self.reload(worker);
                // Nothing is started before what has ended is settled.
                self.commit(worker);
            }
            Action::Start { worker, step } => self.start(worker, step)?,
            Action::Offer { worker, step } => {
                self.faults.offers -= 1;
                if let Some(held) = self.workers[worker].as_mut().and_then(|it| it.held.as_mut()) {
                    held.queue.retain(|queued| *queued != step);
                    held.theirs.push((step, held.snapshot.step(step).next_seq()));
                    held.offers.push(step);
                    held.pending = true;
                }
            }
            Action::StartOffered { worker, at } => {
                if let Some(worker) = &mut self.workers[worker] {
                    worker.borrowed[at].progress = Progress::Running;
                    promises::parents_are_recorded(&before, worker.borrowed[at].attempt.0)?;
                }
            }
            Action::End { worker, attempt, succeeded } => {
                self.faults.failures -= u8::from(!succeeded);
                if let Some(held) = self.workers[worker].as_mut().and_then(|it| it.held.as_mut()) {
                    held.running.retain(|running| *running != attempt);
                    held.ended.push((attempt, succeeded));
                    held.ended.sort_unstable();
                    held.pending = true;
                }
            }
            Action::EndOffered { worker, at, succeeded } => {
                self.faults.failures -= u8::from(!succeeded);
                if let Some(worker) = &mut self.workers[worker] {
                    worker.borrowed[at].progress = Progress::Ended { succeeded };
                }
            }
            Action::Record { worker, attempt, answer_lost } => {
                self.faults.recordings -= 1;
                self.record(worker, attempt, answer_lost)?;
            }
            Action::RecordOffered { worker, at, answer_lost } => {
                self.faults.recordings -= 1;
                self.record_offered(worker, at, answer_lost)?;
            }
            Action::Commit { worker } => self.commit(worker),
            Action::CommitOffered { worker, at } => self.commit_offered(worker, at),
            Action::TakeEffect { worker } => {
                let commit = self.workers[worker].as_mut().and_then(|it| it.commit.take());
                if let Some(mut commit) = commit {
                    self.take_effect(&mut commit)?;
                    if let Some(worker) = &mut self.workers[worker] {
                        worker.commit = Some(commit);
                    }
                }
            }
            Action::Answer { worker } => self.answer(worker),
            Action::LoseAnswer { worker } => {
                self.faults.lost_answers -= 1;
                let commit = self.workers[worker].as_mut().and_then(|it| it.commit.take());
                if let Some(Transaction { author, change, .. }) = commit {
                    let again = self.begin(author, change);
                    if let Some(worker) = &mut self.workers[worker] {
                        worker.commit = Some(again);
                    }
                }
            }
            Action::WakeUp { worker } => {
                let now = self.now();
                if let Some(held) = self.workers[worker].as_mut().and_then(|it| it.held.as_mut()) {
                    held.take_runnable(now);
                }
            }
            Action::Crash { worker } => {
                self.faults.crashes -= 1;
                let commit = self.workers[worker].take().and_then(|worker| worker.commit);
                self.late.extend(commit.filter(|it| matches!(it.stage, Stage::Begun { .. })));
            }
            Action::TakeEffectLate => {
                let mut commit = self.late.remove(0);
                self.take_effect(&mut commit)?;
            }
            Action::RollBackLate => drop(self.late.remove(0)),
            Action::TakeOver { incarnation } => {
                let id = name(incarnation);
                let lives = self.workers.iter().flatten().any(|worker| worker.id == id);
                self.faults.stalls -= u8::from(lives);
                self.store.renew(&heartbeat(id, Duration::ZERO), self.now());
                self.store.take_over(1, self.now());
            }
            Action::Tick => self.ticks += 1,
            Action::LookToCancel => {
                self.faults.cancels -= 1;
                let mut task = Snapshot::replay(&before);
                self.operator = decided(&mut task, &crate::Action::Cancel, self.now());
            }
            Action::LookToRetry => {
                self.faults.retries -= 1;
                let mut task = Snapshot::replay(&before);
                self.operator = decided(&mut task, &crate::Action::Retry, self.now());
            }
            Action::Operate => self.operate()?,
        }
        self.store.has_news = false;
        promises::are_kept(self, &before, matches!(action, Action::Operate))
    }

    fn is_goal(&self) -> bool {
        self.stored().state.is_terminal()
    }
}

fn decided(task: &mut Snapshot, action: &crate::Action, now: Timestamp) -> Option<TaskChange> {
    decide::operate(task, action, &Order::default(), now).ok()?.into_change()
}

fn name(incarnation: u8) -> WorkerId {
    WorkerId::from(uuid::Uuid::from_u128(incarnation.into()))
}

fn heartbeat(worker: WorkerId, lease: Duration) -> Heartbeat {
    Heartbeat { worker, name: String::new(), lease: Some(lease), spare: 0, running: Vec::new() }
}

impl Hash for System {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.store, &self.workers, self.incarnations, &self.late).hash(hasher);
        (&self.operator, self.faults, self.ticks, self.became_ready).hash(hasher);
    }
}
