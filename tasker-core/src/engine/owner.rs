//! Holds tasks: asks `decide` what becomes of them, settles it, and starts what may run.
//!
//! One loop, one task at a time in its hands, so nothing here needs a lock. Reports that arrive
//! while a commit runs are settled together by the next one: that is the group commit.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::Core;
use super::attempt::Ended;
use super::held::{Attempt, Held};
use super::mail::{Message, StoreClock};
use crate::decide::{self, Report};
use crate::event::EventKind;
use crate::snapshot::{Snapshot, Want};
use crate::store::{News, OfferedStep};
use crate::{StepIndex, TaskId};

/// Messages read in one go: more do not make a batch cheaper.
const MAIL: usize = 1024;

/// How often attempts that do not give their thread back are looked for, and how late they may be.
pub(super) const SWEEP: Duration = Duration::from_secs(1);

/// The version of a task that was never claimed before.
const FIRST_CLAIM: u64 = 1;

/// An owner of tasks.
pub(super) struct Owner {
    pub(super) core: Arc<Core>,
    /// Its tasks.
    pub(super) held: HashMap<TaskId, Held>,
    /// Offered steps that it runs for other owners.
    pub(super) borrowed: HashMap<(TaskId, StepIndex), Held>,
    /// Steps that wait for a slot.
    pub(super) queue: VecDeque<(TaskId, StepIndex, Whose)>,
    /// Steps that wait a moment for their turn at a system, and until when.
    pub(super) turns: VecDeque<(Instant, TaskId, StepIndex)>,
    /// When steps of held tasks that wait for a retry are due.
    due: BinaryHeap<Reverse<(Instant, TaskId)>>,
    /// Tasks and offers to decide on.
    pub(super) pending: Vec<TaskId>,
    pub(super) pending_offers: Vec<(TaskId, StepIndex)>,
    /// Tasks whose stored state has to be read again.
    pub(super) stale: Vec<TaskId>,
    pub(super) clock: StoreClock,
    /// Places at systems that are known to have become free.
    pub(super) freed: usize,
    /// Attempts begun so far.
    pub(super) runs: u64,
    /// Steps that others were offered and have not settled.
    pub(super) offered: usize,
    pub(super) stopping: bool,
    pub(super) killed_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Mine,
    Theirs,
}

/// Holds tasks until the worker has stopped and the last one is let go.
pub(super) async fn run(core: Arc<Core>, mut inbox: mpsc::UnboundedReceiver<Message>) {
    let mut owner = Owner::new(core.clone());
    let mut mail = Vec::with_capacity(MAIL);
    let mut turns = core.shared.systems.turns();
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = owner.due.peek().map(|Reverse((at, _))| *at);
        let due = due.into_iter().chain(owner.turns.front().map(|turn| turn.0)).min();
        let mut sweeps = false;
        tokio::select! {
            biased;
            // First what is rare: under load there is always mail.
            () = core.idle.cancelled() => return,
            () = core.kill.cancelled(), if owner.killed_at.is_none() => owner.kill(),
            () = core.stop.cancelled(), if !owner.stopping => owner.stop(),
            _ = sweep.tick(), if owner.has_attempts() => sweeps = true,
            _ = inbox.recv_many(&mut mail, MAIL) => {}
            // Its sender lives as long as the worker.
            _ = turns.changed(), if !owner.turns.is_empty() => {}
            permit = core.slots.clone().acquire_owned(), if !owner.queue.is_empty() => {
                if let Ok(permit) = permit {
                    owner.start_next(permit);
                }
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
        owner.abandon_lost();
        owner.wake_due();
        owner.take_turns(&mut turns);
        for message in mail.drain(..) {
            owner.read(message);
        }
        if sweeps {
            // What ended while a commit waited for the store has been told, and blocks no thread.
            for _ in 0..inbox.len() {
                inbox.try_recv().into_iter().for_each(|message| owner.read(message));
            }
            owner.sweep();
        }
        owner.start();
        while owner.settle().await {
            owner.start();
        }
    }
}

impl Owner {
    fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            held: HashMap::new(),
            borrowed: HashMap::new(),
            queue: VecDeque::new(),
            turns: VecDeque::new(),
            due: BinaryHeap::new(),
            pending: Vec::new(),
            pending_offers: Vec::new(),
            stale: Vec::new(),
            clock: StoreClock::told(Timestamp::UNIX_EPOCH),
            freed: 0,
            runs: 0,
            offered: 0,
            stopping: false,
            killed_at: None,
        }
    }

    fn read(&mut self, message: Message) {
        match message {
            Message::Own { incarnation, task, clock, place } => {
                self.clock = clock;
                let mut held = Held::new(*task, incarnation, &self.core.shared.registry);
                // One that is not of use at once is of use to others.
                held.place = place.filter(|place| held.is_to_call(place, clock.now()));
                self.own(held);
            }
            Message::Offer { incarnation, offer, clock } => {
                self.clock = clock;
                let OfferedStep { task, step, seq } = *offer;
                let known = self.borrowed.get(&(task.id, step));
                let same = |held: &Held| {
                    let version = held.snapshot.version();
                    held.is_of(&incarnation) && version == task.version && held.settles(step, seq)
                };
                if known.is_some_and(same) {
                    // Handed out again after an answer that was thought lost.
                    return self.core.release(1);
                }
                let registry = &self.core.shared.registry;
                let held = Held::new(Snapshot::replay(&task), incarnation, registry);
                if let Some(old) = self.borrowed.insert((task.id, step), held) {
                    old.cancellation.cancel();
                    self.core.release(1);
                }
                self.queue.push_back((task.id, step, Whose::Theirs));
            }
            Message::News(News::Settled { task, row }) => {
                if let Some(held) = self.held.get_mut(&task) {
                    if let Some(step) = row.transition.step
                        && held.end_offer(step, row.transition.seq)
                    {
                        self.offered = self.offered.saturating_sub(1);
                    }
                    held.arrived.push(row);
                    self.decide_on(task);
                }
            }
            // Perhaps it was claimed back since: only the store knows.
            Message::News(News::Revoked { task }) => self.stale.push(task),
            Message::Ended { task, step, run, ran_for, ended } => {
                self.ended(task, step, run, ran_for, ended);
            }
            Message::Reload => {
                let shared = self.held.iter().filter(|(_, held)| held.shared_attempts() > 0);
                self.stale.extend(shared.map(|(id, _)| *id));
            }
            Message::List { answer } => {
                // Whoever asked may have gone.
                let _ = answer.send(self.held.keys().copied().collect());
            }
            Message::Inspect { longer_than, answer } => {
                let _ = answer.send(self.running_longer_than(longer_than));
            }
        }
    }

    fn own(&mut self, held: Held) {
        let id = held.snapshot.id();
        if let Some(known) = self.held.get(&id) {
            let same = known.snapshot.version() == held.snapshot.version();
            if same && known.is_of(&held.incarnation) {
                // Handed out again after an answer that was thought lost.
                return self.core.release(1);
            }
            self.let_go(id);
        }
        if held.snapshot.version() == FIRST_CLAIM {
            let (template, now) = (held.snapshot.template(), self.clock.now());
            self.core.shared.events.tell(id, template, now, || EventKind::TaskStarted);
        }
        self.held.insert(id, held);
        self.begin(id);
    }

    /// Looks at a task that has just come into the owner's hands.
    fn begin(&mut self, id: TaskId) {
        let now = self.clock.now();
        let Some(held) = self.held.get_mut(&id) else { return };
        // Nearly every task may simply run; whatever is to be written is decided in turn.
        if self.stopping || !decide::may_run(&held.snapshot, now) {
            return self.decide_on(id);
        }
        self.enqueue_runnable(id);
    }

    /// Queues the steps of a task that may run now.
    pub(super) fn enqueue_runnable(&mut self, id: TaskId) {
        let now = self.clock.now();
        let Some(held) = self.held.get_mut(&id) else { return };
        if self.stopping {
            return;
        }
        let runnable = held.snapshot.take_runnable(now);
        self.queue.extend(runnable.into_iter().map(|step| (id, step, Whose::Mine)));
        if let Some(at) = held.snapshot.next_due() {
            // All that is due was taken above, so this is in the future.
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            let at = Instant::now() + wait;
            if held.due_at.is_none_or(|noted| at < noted) {
                held.due_at = Some(at);
                self.due.push(Reverse((at, id)));
            }
        }
    }

    pub(super) fn decide_on(&mut self, id: TaskId) {
        if let Some(held) = self.held.get_mut(&id)
            && !held.pending
        {
            held.pending = true;
            self.pending.push(id);
        }
    }

    fn wake_due(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((at, id))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            if let Some(held) = self.held.get_mut(&id).filter(|held| held.due_at == Some(at)) {
                held.due_at = None;
                self.enqueue_runnable(id);
            }
        }
    }

    fn has_attempts(&self) -> bool {
        !self.held.is_empty() || !self.borrowed.is_empty()
    }

    pub(super) fn ended(
        &mut self,
        task: TaskId,
        step: StepIndex,
        run: u64,
        ran_for: Duration,
        ended: Ended,
    ) {
        let borrowed = self.borrowed.get_mut(&(task, step)).filter(|held| held.runs(run));
        let is_borrowed = borrowed.is_some();
        let held = borrowed.or_else(|| self.held.get_mut(&task));
        let attempt = held.and_then(|held| Some((held.end_attempt(run)?, held)));
        let Some((Attempt { seq, .. }, held)) = attempt else {
            // It was settled without its handler, or the task is no longer here.
            if let Ended::Outcome { .. } = ended {
                self.core.rejected.fetch_add(1, Ordering::Relaxed);
            }
            return;
        };
        match ended {
            Ended::Outcome { outcome, retry_after, spared } => {
                let report = Report { step, seq, ran_for, outcome, retry_after, spared };
                held.reports.push(report);
            }
            Ended::Recorded(row) => {
                let template = held.snapshot.template();
                self.core.shared.events.tell_row(task, template, row.at, &row.transition);
                // As if another worker had settled it; the owner of a borrowed step has the news.
                held.arrived.push(*row);
            }
            Ended::Unknown if is_borrowed => {
                // If it is not on record, the step still stands in this worker's name.
                drop(self.return_offer(task, step));
                self.core.resync.notify_one();
                return;
            }
            Ended::Unknown => {
                held.in_doubt.push(step);
                return self.stale.push(task);
            }
            Ended::Cancelled => held.snapshot.give_back(step),
            Ended::Parked => held.snapshot.park(step, Want::System),
        }
        if is_borrowed {
            self.pending_offers.push((task, step));
        } else {
            self.decide_on(task);
        }
    }

    /// Forgets an offered step; it is free for others when this worker retires.
    pub(super) fn return_offer(&mut self, task: TaskId, step: StepIndex) -> Option<Held> {
        let held = self.borrowed.remove(&(task, step));
        self.core.release(usize::from(held.is_some()));
        held
    }

    pub(super) const fn is_stopping(&self) -> bool {
        self.stopping
    }
}
