//! What an owner holds: its tasks, the steps it runs for other owners, and their attempts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::mail::StoreClock;
use super::owner::Whose;
use super::systems::{Place, UnderWay};
use super::{Incarnation, Shared};
use crate::StepIndex;
use crate::decide::{self, Begun, Report};
use crate::handler::{AttemptTime, StepHandler, StepInput, TaskHandler};
use crate::history::Recorded;
use crate::registry::Registry;
use crate::snapshot::{Snapshot, Want};
use crate::store::Route;

/// How long steps wait in memory for their turn at a system.
const PATIENCE: Duration = Duration::from_millis(20);

/// A task that the worker owns, or of which it runs one offered step.
pub(super) struct Held {
    pub(super) snapshot: Snapshot,
    pub(super) incarnation: Arc<Incarnation>,
    /// The handlers of its kind of task, if this process knows it.
    pub(super) handlers: Option<Arc<dyn TaskHandler>>,
    /// Told when the task is no longer the worker's.
    pub(super) cancellation: CancellationToken,
    /// What runs, here or at a worker that took an offer.
    pub(super) attempts: Vec<Attempt>,
    /// Reports that are to be settled.
    pub(super) reports: Vec<Report>,
    /// Rows that other workers added.
    pub(super) arrived: Vec<Recorded>,
    /// Steps that are to be offered to other workers.
    pub(super) offers: Vec<StepIndex>,
    /// Steps whose success may yet turn up on record, by a handler that did not hear of it. They are
    /// not offered: such a row tells nobody, while who offered a step waits to be told.
    pub(super) in_doubt: Vec<StepIndex>,
    /// When a look at its waiting steps is noted.
    pub(super) due_at: Option<Instant>,
    /// Whether it waits to be decided on.
    pub(super) pending: bool,
    /// The place at a system for which it was claimed.
    pub(super) place: Option<Place>,
    /// Until when its steps wait in memory for their turn at a system.
    pub(super) patient_until: Option<Instant>,
}

/// A step that runs.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) step: StepIndex,
    pub(super) seq: u32,
    /// Tells two attempts at the same row apart: the task may have been let go and got back.
    pub(super) run: u64,
    /// `None` where another worker runs it.
    pub(super) input: Option<Arc<StepInput>>,
    pub(super) call: UnderWay,
}

/// Whether a step may start.
pub(super) enum Admitted {
    /// It calls no system, or none for which it could wait.
    Freely,
    /// It may make its call.
    To(Place),
    /// It is to be parked for want of this.
    Not(Want),
}

impl Held {
    pub(super) fn new(
        snapshot: Snapshot,
        incarnation: Arc<Incarnation>,
        registry: &Registry,
    ) -> Self {
        Self {
            handlers: registry.get(snapshot.template()).cloned(),
            cancellation: incarnation.lost.child_token(),
            snapshot,
            incarnation,
            attempts: Vec::new(),
            reports: Vec::new(),
            arrived: Vec::new(),
            offers: Vec::new(),
            in_doubt: Vec::new(),
            due_at: None,
            pending: false,
            place: None,
            patient_until: None,
        }
    }

    /// The handler that is to run a step next.
    pub(super) fn handler(&self, step: StepIndex) -> Option<Arc<dyn StepHandler>> {
        let name = decide::handler_of(&self.snapshot, step);
        let handlers = self.handlers.as_ref()?;
        // It is the user's code: its panic must not end the owner of so many tasks.
        let found = catch_unwind(AssertUnwindSafe(|| handlers.step_handler(name)));
        found.unwrap_or_else(|_| {
            error!(
                handler = name,
                "looking up a handler panicked: the step waits for another worker"
            );
            None
        })
    }

    /// Whether a step may run at once that calls the system of a place.
    pub(super) fn is_to_call(&self, place: &Place, now: Timestamp) -> bool {
        let task = &self.snapshot;
        let is_due = |step: &StepIndex| task.step(*step).ready_at().is_none_or(|at| at <= now);
        let calls = |step: &StepIndex| decide::system_of(task, *step) == Some(place.system());
        decide::may_run(task, now) && task.ready().iter().any(|step| is_due(step) && calls(step))
    }

    /// Whether a step that has a handler here may start.
    pub(super) fn place_for(
        &mut self,
        step: StepIndex,
        shared: &Shared,
        clock: StoreClock,
    ) -> Admitted {
        let Some(name) = decide::system_of(&self.snapshot, step) else { return Admitted::Freely };
        let kept = self.place.take_if(|place| place.system() == name);
        if let Some(place) = kept.filter(Place::still_fits) {
            return Admitted::To(place);
        }
        let template = self.snapshot.template();
        let policy = template.system_policy(name);
        let route = Route::to_system(template, name, decide::handler_of(&self.snapshot, step));
        match shared.systems.get(name).admit(&policy, clock) {
            Ok(place) if place.is_for_sure() => Admitted::To(place),
            // Nobody here would come back for a task of an older template that names a system which
            // the registered one does not.
            _ if !shared.registry.takes_parked(template, &route) => Admitted::Freely,
            admitted => admitted.map_or_else(Admitted::Not, Admitted::To),
        }
    }

    /// Whether a step may wait in memory for its turn: a moment long, from the first time that it
    /// asks, and as long as others of its task run.
    ///
    /// Where calls are quick it has its turn before it could have been set aside and claimed again.
    /// Nor can it be set aside without the others: it would have no turn until the last has ended.
    pub(super) fn is_patient(&mut self) -> bool {
        let now = Instant::now();
        let until = self.patient_until.get_or_insert(now + PATIENCE);
        if !self.attempts.is_empty() && *until <= now {
            *until = now + PATIENCE;
        }
        now < *until
    }

    /// Whether a step that waits for a slot may be offered.
    ///
    /// One that calls a system may not: whether there may be another call is known here, and
    /// perhaps not yet to whoever would take it.
    pub(super) fn may_offer(&self, step: StepIndex) -> bool {
        let in_doubt = self.in_doubt.contains(&step);
        !self.snapshot.has_failed()
            && !in_doubt
            && decide::system_of(&self.snapshot, step).is_none()
    }

    /// Notes that a step begins, and makes what its attempt is given.
    pub(super) fn begin(
        &mut self,
        step: StepIndex,
        run: u64,
        whose: Whose,
        max_result_bytes: usize,
    ) -> (Arc<StepInput>, UnderWay) {
        let (task, now) = (&self.snapshot, self.snapshot.step(step));
        let template = task.template().clone();
        let policy = template.step(step);
        let input = Arc::new(StepInput {
            task: task.id(),
            step,
            context: task.context().clone(),
            results: task.share_results(),
            attempt: now.next_attempt(),
            attempts_left: task.retry_limit(step).saturating_sub(now.counted() + 1),
            undoes: now.is_undoing(),
            round: task.round(step),
            cancellation: self.cancellation.clone(),
            time: AttemptTime::from_now(policy.timeout),
            key: OnceLock::new(),
            worker: self.incarnation.id,
            begun: match whose {
                Whose::Mine => Begun::of_own(task, step),
                Whose::Theirs => Begun::of_offered(task, step),
            },
            max_result_bytes,
            template,
        });
        let seq = now.next_seq();
        let call = UnderWay::default();
        self.attempts.push(Attempt {
            step,
            seq,
            run,
            input: Some(input.clone()),
            call: call.clone(),
        });
        (input, call)
    }

    /// Notes that a step is to be run by another worker.
    pub(super) fn offer(&mut self, step: StepIndex) {
        let seq = self.snapshot.step(step).next_seq();
        self.attempts.push(Attempt { step, seq, run: 0, input: None, call: UnderWay::default() });
        self.offers.push(step);
    }

    /// Whether it was got under this name.
    pub(super) fn is_of(&self, incarnation: &Arc<Incarnation>) -> bool {
        Arc::ptr_eq(&self.incarnation, incarnation)
    }

    /// Whether this row of a step's log is the one that comes next.
    pub(super) fn settles(&self, step: StepIndex, seq: u32) -> bool {
        self.snapshot.step(step).next_seq() == seq
    }

    /// Whether an attempt at a step is under way.
    pub(super) fn is_running(&self, step: StepIndex) -> bool {
        self.attempts.iter().any(|attempt| attempt.step == step)
    }

    /// Whether another worker runs a step, or is to.
    pub(super) fn is_offered(&self, step: StepIndex) -> bool {
        self.attempts.iter().any(|attempt| attempt.step == step && attempt.input.is_none())
    }

    /// Whether it is this attempt's.
    pub(super) fn runs(&self, run: u64) -> bool {
        self.attempts.iter().any(|attempt| attempt.run == run)
    }

    /// Forgets an offer that was settled; false if there was none.
    pub(super) fn end_offer(&mut self, step: StepIndex, seq: u32) -> bool {
        let before = self.attempts.len();
        let same = |it: &Attempt| it.input.is_none() && it.step == step && it.seq == seq;
        self.attempts.retain(|attempt| !same(attempt));
        self.attempts.len() < before
    }

    /// Whether anything of it runs in this process.
    pub(super) fn runs_here(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.input.is_some())
    }

    /// How many of its steps other workers run.
    pub(super) fn shared_attempts(&self) -> usize {
        self.attempts.iter().filter(|attempt| attempt.input.is_none()).count()
    }

    /// Gives up on whatever runs.
    pub(super) fn give_up(&mut self) {
        for attempt in self.attempts.drain(..) {
            self.snapshot.give_back(attempt.step);
        }
    }

    /// Forgets an attempt; `None` if it was forgotten before.
    pub(super) fn end_attempt(&mut self, run: u64) -> Option<Attempt> {
        let found = self.attempts.iter().position(|attempt| attempt.run == run)?;
        Some(self.attempts.swap_remove(found))
    }
}
