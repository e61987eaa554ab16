//! The owner's queue: which step starts next, what waits for its turn, what others are offered.

use std::sync::atomic::Ordering;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tracing::{Instrument, info_span};

use super::attempt::Began;
use super::held::Admitted;
use super::mail::Message;
use super::owner::{Owner, Whose};
use crate::TaskId;
use crate::decide;
use crate::snapshot::Want;

/// The most steps that are looked at, of those that wait for a slot, for some to offer.
const LOOKS: usize = 128;

impl Owner {
    /// Starts as many queued steps as there are slots.
    pub(super) fn start(&mut self) {
        while !self.queue.is_empty()
            && let Ok(permit) = self.core.slots.clone().try_acquire_owned()
        {
            self.start_next(permit);
        }
        self.offer_excess();
    }

    /// Starts the next queued step that is still wanted.
    pub(super) fn start_next(&mut self, permit: OwnedSemaphorePermit) {
        while let Some((task, step, whose)) = self.queue.pop_front() {
            let held = match whose {
                Whose::Mine => self.held.get_mut(&task),
                Whose::Theirs => self.borrowed.get_mut(&(task, step)),
            };
            let Some(held) = held else { continue };
            if whose == Whose::Mine && (held.snapshot.has_failed() || self.stopping) {
                held.snapshot.give_back(step);
                // Its siblings may run for long, and nothing more of it begins.
                held.place = None;
                self.decide_on(task);
                continue;
            }
            // What waited for a slot may have been let go meanwhile, and got back.
            let taken = held.snapshot.step(step).is_taken();
            if held.is_running(step) || (whose == Whose::Mine && !taken) {
                continue;
            }
            let Some(handler) = held.handler(step) else {
                match whose {
                    Whose::Mine => {
                        held.snapshot.park(step, Want::Handler);
                        self.decide_on(task);
                    }
                    Whose::Theirs => drop(self.return_offer(task, step)),
                }
                continue;
            };
            let clock = self.clock;
            let place = match held.place_for(step, &self.core.shared, clock) {
                Admitted::Freely => None,
                Admitted::To(place) => {
                    held.patient_until = None;
                    Some(place)
                }
                Admitted::Not(want) => {
                    match whose {
                        Whose::Mine if want == Want::Turn && held.is_patient() => {
                            let until = held.patient_until.unwrap_or_else(Instant::now);
                            self.turns.push_back((until, task, step));
                        }
                        Whose::Mine => {
                            held.patient_until = None;
                            if let Some(system) = decide::system_of(&held.snapshot, step) {
                                self.core.shared.systems.get(system).parks();
                            }
                            held.snapshot.park(step, want);
                            self.decide_on(task);
                        }
                        // Nobody offers such a step.
                        Whose::Theirs => drop(self.return_offer(task, step)),
                    }
                    continue;
                }
            };
            let template = held.snapshot.template().clone();
            self.runs += 1;
            let run = self.runs;
            let (input, call) = held.begin(step, run, whose, self.core.settings.max_result_bytes);
            let attempt = input.attempt;
            let name = &template.step(step).name;
            let span = info_span!("step", %task, step = name.as_str(), attempt);
            let core = self.core.clone();
            let attempt = async move {
                let began = Began { handler, input, clock, permit, call };
                let (ran_for, ended) = began.run(&core.shared, place).await;
                core.tell(task, Message::Ended { task, step, run, ran_for, ended });
            };
            // Not awaited by anybody: it ends by its time-out, its cancellation or with its runtime.
            drop(self.core.handlers.spawn(attempt.instrument(span)));
            return;
        }
    }

    /// Offers steps that wait for a slot to workers that have one.
    fn offer_excess(&mut self) {
        let spare = self.core.others_spare.load(Ordering::Relaxed);
        let mut room = spare.saturating_sub(self.offered);
        // The last in the queue would wait longest. What is not offered keeps its place there.
        let (last, most) = (self.queue.len(), self.queue.len().min(LOOKS));
        for at in (last - most..last).rev() {
            if room == 0 {
                return;
            }
            let (task, step, whose) = self.queue[at];
            let held = self.held.get_mut(&task).filter(|_| whose == Whose::Mine);
            if let Some(held) = held.filter(|held| held.may_offer(step)) {
                held.offer(step);
                self.queue.remove(at);
                self.offered += 1;
                room -= 1;
                self.decide_on(task);
            }
        }
    }

    /// Queues steps that may have their turn at a system now, or have waited long enough.
    pub(super) fn take_turns(&mut self, turns: &mut watch::Receiver<usize>) {
        if self.turns.is_empty() {
            return;
        }
        let (now, before) = (Instant::now(), self.freed);
        self.freed = *turns.borrow_and_update();
        // With every success there is another place.
        let free = self.freed.wrapping_sub(before).saturating_mul(2);
        let late = self.turns.iter().take_while(|turn| turn.0 <= now).count();
        let some = self.turns.drain(..free.max(late).min(self.turns.len()));
        some.rev().for_each(|(_, task, step)| self.queue.push_front((task, step, Whose::Mine)));
    }

    /// Forgets the steps of a task that wait for a slot.
    pub(super) fn forget_queued(&mut self, id: TaskId) {
        self.queue.retain(|(task, _, whose)| *task != id || *whose == Whose::Theirs);
        self.turns.retain(|(_, task, _)| *task != id);
    }
}
