//! Looks after what an owner runs: handlers that hang, and the end of the worker.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::attempt::{self, Ended};
use super::held::Held;
use super::mail::Message;
use super::owner::{Owner, SWEEP, Whose};
use super::systems::NOTE;
use crate::store::RunningStep;

impl Owner {
    /// Settles the attempts whose handlers do not give their threads back in time.
    pub(super) fn sweep(&mut self) {
        let now = Instant::now();
        if self.killed_at.is_some_and(|at| now > at + SWEEP) {
            return self.give_up();
        }
        let mut blocked = Vec::new();
        for held in self.held.values().chain(self.borrowed.values()) {
            for running in &held.attempts {
                if let Some(input) = &running.input
                    && now > input.time.deadline() + SWEEP
                {
                    blocked.push((input.clone(), running.run, running.call.ends()));
                }
            }
        }
        for (input, run, place) in blocked {
            let (task, step, ran_for) = (input.task, input.step, input.time.elapsed());
            warn!(%task, step = input.template.step(step).name, "a handler blocks its thread");
            let outcome = Err(attempt::blocked_failure(&input));
            let ended = Ended::Outcome { outcome, retry_after: None, spared: false };
            let Some(place) = place else {
                self.ended(task, step, run, ran_for, ended);
                continue;
            };
            // At once, so that the next look does not find it late.
            input.time.extend(NOTE);
            let (core, clock) = (self.core.clone(), self.clock);
            // Not on the handlers' threads, of which it has one too few. The store has a second.
            drop(tokio::spawn(async move {
                let ended = attempt::note(&core.shared, place, &input, clock, ended).await;
                core.tell(task, Message::Ended { task, step, run, ran_for, ended });
            }));
        }
    }

    pub(super) fn running_longer_than(&self, limit: Duration) -> Vec<RunningStep> {
        let attempts = self.held.iter().flat_map(|(task, held)| {
            held.attempts.iter().filter_map(move |running| Some((*task, running.input.as_ref()?)))
        });
        attempts
            .map(|(task, input)| RunningStep {
                task,
                step: input.step,
                running_for: input.time.elapsed(),
            })
            .filter(|running| running.running_for > limit)
            .collect()
    }

    /// Begins nothing more: tasks of which nothing runs are given back.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        let turns = self.turns.drain(..);
        self.queue.extend(turns.map(|(_, task, step)| (task, step, Whose::Mine)));
        for (task, step, whose) in std::mem::take(&mut self.queue) {
            match whose {
                Whose::Mine => {
                    if let Some(held) = self.held.get_mut(&task) {
                        held.snapshot.give_back(step);
                    }
                }
                Whose::Theirs => drop(self.return_offer(task, step)),
            }
        }
        let all: Vec<_> = self.held.keys().copied().collect();
        all.into_iter().for_each(|task| self.decide_on(task));
    }

    /// Cancels what runs.
    pub(super) fn kill(&mut self) {
        self.stop();
        self.killed_at = Some(Instant::now());
        for held in self.held.values_mut().chain(self.borrowed.values_mut()) {
            held.cancellation.cancel();
        }
    }

    /// Gives up on handlers that do not give their threads back although they were cancelled.
    pub(super) fn give_up(&mut self) {
        let borrowed: Vec<_> = self.borrowed.keys().copied().collect();
        for (task, step) in borrowed {
            self.return_offer(task, step);
        }
        self.held.values_mut().for_each(Held::give_up);
        self.stop();
    }
}
