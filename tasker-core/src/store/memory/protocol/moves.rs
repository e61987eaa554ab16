//! What the workers and the operator of the model do with the store.

use std::time::Duration;

use super::promises;
use super::system::System;
use super::worker::{Answer, Attempt, Borrowed, Held, Progress, Stage, Transaction, report};
use crate::decide::{self, Begun};
use crate::history::{Author, Recorded};
use crate::snapshot::Snapshot;
use crate::store::{Applied, Assumption, ClaimRequest, Claimed, Committed, TaskChange, Then};
use crate::{Json, StepIndex, WorkerId};

impl System {
    pub(super) fn begin(&self, worker: WorkerId, change: TaskChange) -> Transaction {
        let author = Author::Worker(worker);
        let (admitted, holds) = (self.store.admits(&author), self.store.holds(&author, &change));
        Transaction { author: worker, change, stage: Stage::Begun { admitted, holds } }
    }

    /// The second move of a worker's commit.
    pub(super) fn take_effect(&mut self, commit: &mut Transaction) -> Result<(), String> {
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

    pub(super) fn claim(&mut self, at: usize, answer_lost: bool) -> Result<(), String> {
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

    pub(super) fn reload(&mut self, at: usize) {
        let stored = self.stored();
        let Some(worker) = &mut self.workers[at] else { return };
        match &mut worker.held {
            Some(held) if stored.owner == Some(worker.id) => held.reload(&stored),
            _ => worker.held = None,
        }
    }

    pub(super) fn start(&mut self, at: usize, step: StepIndex) -> Result<(), String> {
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

    pub(super) fn answer(&mut self, at: usize) {
        let now = self.now();
        let Some(worker) = &mut self.workers[at] else { return };
        let Some(Transaction { change, stage: Stage::Done(answer), .. }) = worker.commit.take()
        else {
            return;
        };
        let offer = matches!(change.assumes, Assumption::OfferHeld { .. });
        match (answer, &mut worker.held) {
            (Answer::LeaseLost, _) => self.workers[at] = None,
            (Answer::Conflict, Some(held)) if !offer => {
                held.offers.extend(change.offers.iter().map(|offer| offer.step));
                held.stale = true;
            }
            (Answer::Applied, Some(held)) if !offer => match change.then {
                Then::Keep => held.take_runnable(now),
                Then::Queue { .. } | Then::Hold { .. } | Then::End { .. } => worker.held = None,
            },
            (Answer::Conflict | Answer::Applied, _) => {}
        }
    }

    pub(super) fn commit(&mut self, at: usize) {
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

    pub(super) fn commit_offered(&mut self, at: usize, offer: usize) {
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

    /// A handler records its success itself, and is told what became of it unless that is lost.
    pub(super) fn record(
        &mut self,
        at: usize,
        attempt: Attempt,
        answer_lost: bool,
    ) -> Result<(), String> {
        let Some(worker) = &self.workers[at] else { return Ok(()) };
        let (id, Some(held)) = (worker.id, &worker.held) else { return Ok(()) };
        let begun = Begun::of_own(&held.snapshot, attempt.0);
        let recorded = self.recorded(id, begun, answer_lost)?;
        let Some(held) = self.workers[at].as_mut().and_then(|it| it.held.as_mut()) else {
            return Ok(());
        };
        held.running.retain(|running| *running != attempt);
        match recorded {
            Some(Ok(row)) => held.arrived.push(row),
            // The store is to judge.
            Some(Err(())) => held.ended.push((attempt, false)),
            None => {
                held.in_doubt.retain(|step| *step != attempt.0);
                held.in_doubt.push(attempt.0);
                held.in_doubt.sort_unstable();
                held.stale = true;
            }
        }
        held.ended.sort_unstable();
        held.pending = true;
        Ok(())
    }

    pub(super) fn record_offered(
        &mut self,
        at: usize,
        offer: usize,
        answer_lost: bool,
    ) -> Result<(), String> {
        let Some(worker) = &self.workers[at] else { return Ok(()) };
        let Borrowed { snapshot, attempt, .. } = &worker.borrowed[offer];
        let begun = Begun::of_offered(snapshot, attempt.0);
        let recorded = self.recorded(worker.id, begun, answer_lost)?;
        let Some(worker) = &mut self.workers[at] else { return Ok(()) };
        match recorded {
            Some(Err(())) => worker.borrowed[offer].progress = Progress::Ended { succeeded: false },
            Some(Ok(_)) => drop(worker.borrowed.remove(offer)),
            None => {
                worker.borrowed.remove(offer);
                worker.recover = true;
            }
        }
        Ok(())
    }

    /// The row, or a refusal; `None` if it may take effect at any time, and nobody is told.
    fn recorded(
        &mut self,
        worker: WorkerId,
        begun: Begun,
        answer_lost: bool,
    ) -> Result<Option<Result<Recorded, ()>>, String> {
        let transition = begun.success(Duration::ZERO, Json::null());
        let mut commit = self.begin(worker, begun.record(transition.clone()));
        if answer_lost {
            self.late.push(commit);
            return Ok(None);
        }
        self.take_effect(&mut commit)?;
        let row = Recorded { at: self.now(), author: Author::Worker(worker), transition };
        let applied = matches!(commit.stage, Stage::Done(Answer::Applied));
        Ok(Some(if applied { Ok(row) } else { Err(()) }))
    }

    pub(super) fn operate(&mut self) -> Result<(), String> {
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
}
