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
use super::worker::{
    Answer, Attempt, Borrowed, Held, Progress, Stage, Transaction, Worker, report,
};
use crate::decide;
use crate::history::Author;
use crate::snapshot::Snapshot;
use crate::store::{
    Applied, Assumption, ClaimRequest, Claimed, Committed, Heartbeat, NewTask, Route, StoredTask,
    TaskChange, Then,
};
use crate::{Json, RetryPolicy, StepIndex, StepTemplate, TaskId, TaskTemplate, WorkerId};

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
    task: TaskId,
    routes: Arc<std::collections::BTreeSet<Route>>,
    workers: [Option<Worker>; 2],
    incarnations: u8,
    /// Commits of workers that have crashed since.
    late: Vec<Transaction>,
    /// What an operator decided from what it read.
    operator: Option<TaskChange>,
    faults: Faults,
    ticks: u8,
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

    fn now(&self) -> Timestamp {
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

    fn begin(&self, worker: WorkerId, change: TaskChange) -> Transaction {
        let author = Author::Worker(worker);
        let (admitted, holds) = (self.store.admits(&author), self.store.holds(&author, &change));
        Transaction { author: worker, change, stage: Stage::Begun { admitted, holds } }
    }

    /// The second move of a worker's commit.
    fn take_effect(&mut self, commit: &mut Transaction) -> Result<(), String> {
        let Stage::Begun { admitted, holds } = commit.stage else { return Ok(()) };
        let author = Author::Worker(commit.author);
        // Whoever writes the row that it assumes something of compares it again.
        let moves = commit.change.then != Then::Keep;
        let writes = moves || matches!(commit.change.assumes, Assumption::OfferHeld { .. });
        let answer = if !admitted {
            Answer::LeaseLost
        } else if !holds || (writes && !self.store.holds(&author, &commit.change)) {
            Answer::Conflict
        } else {
            let before = self.stored();
            let held = promises::holds(&self.store, &before, &author, &commit.change);
            let applied = self.store.write(&author, commit.change.clone(), self.now());
            if applied == Applied::Yes {
                held?;
                promises::rows_are_new(&before, &commit.change)?;
            }
            applied.into()
        };
        commit.stage = Stage::Done(answer);
        Ok(())
    }

    fn claim(&mut self, at: usize, answer_lost: bool) -> Result<(), String> {
        let now = self.now();
        let Some(worker) = &mut self.workers[at] else { return Ok(()) };
        let recover = worker.recover;
        let holding = || worker.held.iter().map(|held| held.snapshot.id()).collect();
        let request = ClaimRequest {
            worker: worker.id,
            routes: self.routes.clone(),
            tasks: usize::from(worker.held.is_none()),
            offers: usize::from(worker.borrowed.is_empty()),
            holding: recover.then(holding),
        };
        let claimed = self.store.claim(&request, now);
        if answer_lost {
            self.faults.lost_answers -= 1;
            worker.recover = true;
            return Ok(());
        }
        let Claimed::Work(work) = claimed else {
            self.workers[at] = None;
            return Ok(());
        };
        worker.recover = false;
        for task in &work.tasks {
            worker.held = Some(Held::new(task, now));
        }
        let known = self.store.load(self.task, now).unwrap();
        for offer in work.offers {
            let attempt = (offer.step, offer.seq);
            promises::is_open(&known, attempt)?;
            worker.borrowed.retain(|borrowed| borrowed.attempt != attempt);
            let snapshot = Snapshot::replay(&offer.task);
            worker.borrowed.push(Borrowed { snapshot, attempt, progress: Progress::Queued });
        }
        for news in work.news {
            worker.hear(news);
        }
        if let Some(held) = &mut worker.held
            && recover
            && !held.theirs.is_empty()
        {
            held.stale = true;
        }
        Ok(())
    }

    fn reload(&mut self, at: usize) {
        let stored = self.stored();
        let Some(worker) = &mut self.workers[at] else { return };
        match &mut worker.held {
            Some(held) if stored.owner == Some(worker.id) => held.reload(&stored),
            _ => worker.held = None,
        }
    }

    fn start(&mut self, at: usize, step: StepIndex) -> Result<(), String> {
        let stored = self.stored();
        let Some(held) = self.workers[at].as_mut().and_then(|it| it.held.as_mut()) else {
            return Ok(());
        };
        held.queue.retain(|queued| *queued != step);
        if held.snapshot.has_failed() {
            held.snapshot.give_back(step);
            held.pending = true;
            return Ok(());
        }
        held.running.push((step, held.snapshot.step(step).next_seq()));
        held.running.sort_unstable();
        promises::parents_are_recorded(&stored, step)
    }

    fn answer(&mut self, at: usize) {
        let now = self.now();
        let Some(worker) = &mut self.workers[at] else { return };
        let Some(Transaction { change, stage: Stage::Done(answer), .. }) = worker.commit.take()
        else {
            return;
        };
        let offer = matches!(change.assumes, Assumption::OfferHeld { .. });
        match (answer, &mut worker.held) {
            (Answer::LeaseLost, _) => self.workers[at] = None,
            (Answer::Conflict, Some(held)) if !offer => held.stale = true,
            (Answer::Applied, Some(held)) if !offer => match change.then {
                Then::Keep => held.take_runnable(now),
                Then::Queue { .. } | Then::End { .. } => worker.held = None,
            },
            (Answer::Conflict | Answer::Applied, _) => {}
        }
    }

    fn commit(&mut self, at: usize) {
        let now = self.now();
        let Some(worker) = &mut self.workers[at] else { return };
        let (id, Some(held)) = (worker.id, &mut worker.held) else { return };
        let change = held.decide(now);
        if change.is_empty() {
            return held.take_runnable(now);
        }
        let commit = self.begin(id, change);
        if let Some(worker) = &mut self.workers[at] {
            worker.commit = Some(commit);
        }
    }

    fn commit_offered(&mut self, at: usize, offer: usize) {
        let Some(worker) = &mut self.workers[at] else { return };
        let id = worker.id;
        let Borrowed { snapshot, attempt, progress } = worker.borrowed.remove(offer);
        let Progress::Ended { succeeded } = progress else { return };
        if let Some(change) = decide::settle_offer(&snapshot, report(attempt, succeeded)) {
            let commit = self.begin(id, change);
            if let Some(worker) = &mut self.workers[at] {
                worker.commit = Some(commit);
            }
        }
    }

    fn operate(&mut self) -> Result<(), String> {
        let Some(change) = self.operator.take() else { return Ok(()) };
        let before = self.stored();
        let author = Author::Operator("ada".to_owned());
        let committed = self.store.commit(&author, vec![change.clone()], self.now());
        match committed {
            Committed::Changes { applied, .. } if applied == [Applied::Yes] => {
                promises::rows_are_new(&before, &change)
            }
            Committed::Changes { .. } | Committed::LeaseLost => Ok(()),
        }
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
        }
        match &it.commit {
            Some(Transaction { stage: Stage::Begun { .. }, .. }) => {
                return actions.push(Action::TakeEffect { worker });
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
            if self.faults.offers > 0 && !held.snapshot.has_failed() {
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
            Action::Reload { worker } => self.reload(worker),
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
                self.operator = decide::cancel(&mut task, "", self.now()).ok();
            }
            Action::LookToRetry => {
                self.faults.retries -= 1;
                let mut task = Snapshot::replay(&before);
                self.operator = decide::retry(&mut task, "", self.now()).ok();
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
