//! The owner's writing side: what was decided becomes durable, then it takes effect.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{debug, error, warn};

use super::Incarnation;
use super::held::Held;
use super::mail::StoreClock;
use super::owner::Owner;
use super::patience::Patience;
use crate::decide;
use crate::event::EventKind;
use crate::history::{Author, Occurrence};
use crate::snapshot::{Outcome, Snapshot, Undone};
use crate::store::{Applied, Awaited, Committed, StoreError, StoredTask, TaskChange, Then};
use crate::{StepIndex, TaskId, TaskState};

/// A change on its way to the store.
struct Decided {
    incarnation: Arc<Incarnation>,
    change: TaskChange,
    /// Which offered step it settles, if it settles one.
    offer: Option<StepIndex>,
}

impl Owner {
    /// Decides on all that is pending and commits it; false if there was nothing to do.
    pub(super) async fn settle(&mut self) -> bool {
        self.reload_stale().await;
        let mut decided = self.decide_pending();
        let worked = !decided.is_empty();
        // All of them bear one name, but for the moment after a lease was lost.
        while let Some(first) = decided.first() {
            let incarnation = first.incarnation.clone();
            let (batch, rest): (Vec<_>, Vec<_>) = decided
                .into_iter()
                .partition(|other| Arc::ptr_eq(&other.incarnation, &incarnation));
            decided = rest;
            self.commit(&incarnation, batch).await;
        }
        worked || !self.pending.is_empty() || !self.stale.is_empty()
    }

    fn decide_pending(&mut self) -> Vec<Decided> {
        let now = self.clock.now();
        let mut decided = Vec::with_capacity(self.pending.len() + self.pending_offers.len());
        for id in std::mem::take(&mut self.pending) {
            let stopping = self.is_stopping();
            let Some(held) = self.held.get_mut(&id) else { continue };
            held.pending = false;
            let reports = std::mem::take(&mut held.reports);
            let arrived = std::mem::take(&mut held.arrived);
            let mut change = decide::settle(&mut held.snapshot, reports, &arrived, now);
            let offers = std::mem::take(&mut held.offers);
            change.offers = decide::offers(&held.snapshot, &offers);
            if stopping && change.then == Then::Keep && !held.runs_here() {
                change.then = decide::hand_back(&held.snapshot);
            }
            if change.is_empty() {
                self.enqueue_runnable(id);
            } else {
                let incarnation = held.incarnation.clone();
                decided.push(Decided { incarnation, change, offer: None });
            }
        }
        for (id, step) in std::mem::take(&mut self.pending_offers) {
            let Some(held) = self.borrowed.get_mut(&(id, step)) else { continue };
            // Nothing is to be reported of an attempt that was cancelled.
            let report = held.reports.pop();
            match report.and_then(|report| decide::settle_offer(&held.snapshot, report)) {
                Some(change) => {
                    let incarnation = held.incarnation.clone();
                    decided.push(Decided { incarnation, change, offer: Some(step) });
                }
                None => drop(self.return_offer(id, step)),
            }
        }
        decided
    }

    /// Commits a batch, however long the store is away, and lets it take effect.
    async fn commit(&mut self, incarnation: &Arc<Incarnation>, batch: Vec<Decided>) {
        let author = Author::Worker(incarnation.id);
        let mut patience = Patience::new();
        let committed = loop {
            let changes = batch.iter().map(|decided| decided.change.clone()).collect();
            match self.core.shared.store.commit(&author, changes).await {
                Ok(committed) => break committed,
                Err(error @ StoreError::Damaged { .. }) => {
                    return self.commit_damaged(incarnation, batch, &error).await;
                }
                Err(error) => {
                    // It may have been applied all the same; then the next try conflicts, and what
                    // is stored decides.
                    if patience.tells() {
                        warn!(%error, tasks = batch.len(), "outcomes cannot be recorded yet");
                    }
                    tokio::select! {
                        () = patience.pause() => {}
                        () = self.core.kill.cancelled() => return self.abandon(incarnation),
                        () = incarnation.lost.cancelled() => return self.abandon(incarnation),
                    }
                }
            }
        };
        match committed {
            Committed::LeaseLost => {
                let rows: usize = batch.iter().map(|decided| decided.change.rows.len()).sum();
                self.core.rejected.fetch_add(rows, Ordering::Relaxed);
                incarnation.lost.cancel();
                self.abandon(incarnation);
            }
            Committed::Changes { now, applied } => {
                self.clock = StoreClock::told(now);
                let gone: usize = batch
                    .into_iter()
                    .zip(applied)
                    .map(|(decided, applied)| self.take_effect(decided, applied))
                    .sum();
                // Once for all of them: whoever waits for room sees all of it.
                self.core.release(gone);
            }
        }
    }

    /// After a refusal that no repetition mends: one bad task must not hold up the others.
    async fn commit_damaged(
        &mut self,
        incarnation: &Arc<Incarnation>,
        batch: Vec<Decided>,
        error: &StoreError,
    ) {
        if let [alone] = batch.as_slice() {
            let task = alone.change.task;
            error!(%error, %task, "what became of a task cannot be recorded: nobody goes on with it");
            match alone.offer {
                Some(step) => drop(self.return_offer(task, step)),
                None => self.let_go(task),
            }
            return;
        }
        for alone in batch {
            Box::pin(self.commit(incarnation, vec![alone])).await;
        }
    }

    /// Lets a change take effect; how many tasks it leaves the owner without, one or none.
    fn take_effect(&mut self, decided: Decided, applied: Applied) -> usize {
        let Decided { change, offer, .. } = decided;
        let id = change.task;
        let held = match offer {
            Some(step) => self.return_offer(id, step),
            None => None,
        };
        if applied == Applied::Conflict {
            debug!(task = %id, "the task was moved by somebody else");
            self.core.rejected.fetch_add(change.rows.len(), Ordering::Relaxed);
            if let (None, Some(held)) = (offer, self.held.get_mut(&id)) {
                // Its offers were not stored either, unless it is the repetition of a commit whose
                // answer was lost. Where one stands, offering it again changes nothing.
                held.offers.extend(change.offers.iter().map(|offer| offer.step));
                self.stale.push(id);
            }
            return 0;
        }
        let Some(held) = held.as_ref().or_else(|| self.held.get(&id)) else { return 0 };
        self.tell(held, &change);
        match change.then {
            Then::Keep => {
                if offer.is_none() {
                    self.enqueue_runnable(id);
                }
                0
            }
            Then::Queue { route, .. } => {
                if let Some(Awaited::System(system)) = route.waits_for() {
                    self.core.shared.systems.get(system).has_waiting();
                }
                self.forget(id)
            }
            Then::Hold { .. } => self.forget(id),
            Then::End { .. } => {
                let gone = self.forget(id);
                self.core.shared.events.ended(id);
                gone
            }
        }
    }

    fn tell(&self, held: &Held, change: &TaskChange) {
        if change.has_documents() {
            self.core.shared.raised.notify_one();
        }
        let events = &self.core.shared.events;
        let (id, template, at) = (change.task, held.snapshot.template(), self.clock.now());
        for row in &change.rows {
            events.tell_row(id, template, at, row);
        }
        let begun = |what: &Occurrence| matches!(what, Occurrence::CompensationBegun);
        if change.rows.iter().any(|row| begun(&row.what)) {
            events.tell(id, template, at, || escalation(&held.snapshot));
        }
        let Then::End { state } = change.then else { return };
        let degraded = held.snapshot.degraded();
        match state {
            TaskState::Complete => {
                events.tell(id, template, at, || EventKind::TaskCompleted { degraded });
            }
            TaskState::Error => {
                let quarantined =
                    |what: &Occurrence| matches!(what, Occurrence::Quarantined { .. });
                if !change.rows.iter().any(|row| quarantined(&row.what)) {
                    events.tell(id, template, at, || escalation(&held.snapshot));
                }
                events.tell(id, template, at, || EventKind::TaskFailed);
            }
            TaskState::Compensated => {
                events.tell(id, template, at, || EventKind::TaskCompensated);
            }
            TaskState::Cancelled
            | TaskState::Pending
            | TaskState::InProgress
            | TaskState::Paused
            | TaskState::Compensating
            | TaskState::ResolvedManually => {}
        }
    }

    /// Forgets a task that is somebody else's now, or nobody's, and gives its room back.
    pub(super) fn let_go(&mut self, id: TaskId) {
        let gone = self.forget(id);
        self.core.release(gone);
    }

    /// Forgets a task; how much room that leaves, one place or none.
    fn forget(&mut self, id: TaskId) -> usize {
        let Some(held) = self.held.remove(&id) else { return 0 };
        held.cancellation.cancel();
        self.offered = self.offered.saturating_sub(held.shared_attempts());
        1
    }

    /// Forgets everything that was held under a name that is gone.
    fn abandon(&mut self, incarnation: &Arc<Incarnation>) {
        let gone = |held: &Held| held.is_of(incarnation);
        let tasks: Vec<_> =
            self.held.iter().filter(|(_, held)| gone(held)).map(|(id, _)| *id).collect();
        tasks.into_iter().for_each(|id| self.let_go(id));
        let borrowed = self.borrowed.iter().filter(|(_, held)| gone(held));
        let borrowed: Vec<_> = borrowed.map(|(key, _)| *key).collect();
        borrowed.into_iter().for_each(|(id, step)| drop(self.return_offer(id, step)));
    }

    /// Forgets what is held under names that are gone.
    pub(super) fn abandon_lost(&mut self) {
        let lost = self.held.values().chain(self.borrowed.values());
        let lost = lost.map(|held| &held.incarnation).find(|it| it.lost.is_cancelled());
        if let Some(incarnation) = lost.cloned() {
            self.abandon(&incarnation);
        }
    }

    /// Reads tasks again that somebody else has moved.
    async fn reload_stale(&mut self) {
        for id in std::mem::take(&mut self.stale) {
            let Some(held) = self.held.get(&id) else { continue };
            let incarnation = held.incarnation.clone();
            let mut patience = Patience::new();
            let stored = loop {
                match self.core.shared.store.load(id).await {
                    Ok(stored) => break stored,
                    Err(error @ StoreError::Damaged { .. }) => {
                        error!(%error, task = %id, "a task cannot be read: nobody goes on with it");
                        break None;
                    }
                    Err(error) => {
                        if patience.tells() {
                            warn!(%error, task = %id, "a task cannot be read again yet");
                        }
                        tokio::select! {
                            () = patience.pause() => {}
                            () = self.core.kill.cancelled() => break None,
                            () = incarnation.lost.cancelled() => break None,
                        }
                    }
                }
            };
            match stored {
                Some(stored) if stored.owner == Some(incarnation.id) => self.renew(&stored),
                Some(stored) => {
                    self.let_go(id);
                    if stored.state.is_terminal() {
                        self.core.shared.events.ended(id);
                    }
                }
                None => self.let_go(id),
            }
        }
    }

    /// Goes on from what is stored; what runs, runs on unless the task was taken away meanwhile.
    fn renew(&mut self, stored: &StoredTask) {
        let Some(held) = self.held.get_mut(&stored.id) else { return };
        let mut snapshot = Snapshot::replay(stored);
        let before = held.shared_attempts();
        if held.snapshot.version() != snapshot.version() {
            // Somebody took it away, and it was claimed back: what runs has another input, or does
            // what is to be undone by now.
            held.cancellation.cancel();
            let pending = held.pending;
            *held = Held::new(snapshot, held.incarnation.clone(), &self.core.shared.registry);
            held.pending = pending;
            self.offered = self.offered.saturating_sub(before);
            self.forget_queued(stored.id);
            return self.decide_on(stored.id);
        }
        // They are in the history that was read.
        held.arrived.clear();
        held.attempts.retain(|attempt| {
            let wanted = snapshot.step(attempt.step).next_seq() == attempt.seq;
            if wanted {
                snapshot.take(attempt.step);
            }
            wanted
        });
        let settled = before - held.shared_attempts();
        let mut offers = std::mem::take(&mut held.offers);
        offers.retain(|step| held.is_offered(*step));
        held.offers = offers;
        held.snapshot = snapshot;
        self.offered = self.offered.saturating_sub(settled);
        self.forget_queued(stored.id);
        self.decide_on(stored.id);
    }
}

/// Why a failed task needs a person.
fn escalation(task: &Snapshot) -> EventKind {
    let undoing = task.state() != TaskState::Compensating
        && task.steps().iter().any(|step| step.undone() == Undone::Failed);
    let failed = task.template().steps().iter().zip(task.steps()).find_map(|(template, step)| {
        let (failed, failure) = match undoing {
            true => (step.undone() == Undone::Failed, step.failure()),
            false => (step.outcome() == Outcome::Failed, step.forward().2),
        };
        let failure = failure.filter(|_| failed)?;
        Some((template.name.clone(), failure.clone()))
    });
    let (step, failure) = failed.unzip();
    let reason = match (&step, &failure) {
        (Some(step), Some(failure)) if undoing => {
            format!("what step `{step}` did could not be undone: {}", failure.message)
        }
        (Some(step), Some(failure)) => {
            format!("step `{step}` failed for good: {}", failure.message)
        }
        _ => "a step failed for good".to_owned(),
    };
    EventKind::TaskEscalated { step, failure, reason }
}
