//! The tasks of a batch of changes as they stand, and as they will once the changes are applied.
//!
//! Changes are applied one after another in memory, so a later one sees what an earlier one did;
//! what remains at the end is written at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tasker_core::history::{Author, Transition};
use tasker_core::store::{Assumption, NewOffer, TaskChange, Then};
use tasker_core::{TaskId, WorkerId};

use crate::rows::{Standing, after, log_of};

/// Where the tasks of a batch stand.
pub(super) struct Board<'a> {
    now: i64,
    tasks: HashMap<TaskId, Place>,
    offers: HashMap<TaskId, Vec<Offer<'a>>>,
    /// Rows that exist: found when that was looked for, and those that the batch adds.
    present: HashSet<(TaskId, i64, u32)>,
    effects: Effects<'a>,
}

struct Place {
    stored: Standing,
    now: Standing,
}

/// An offered step.
pub(super) struct Offer<'a> {
    step: i64,
    seq: u32,
    holder: Option<WorkerId>,
    /// Whether there is a row of the step, which has to go if the offer does.
    stored: bool,
    made: Option<&'a NewOffer>,
}

impl Offer<'_> {
    /// One that is in the database.
    pub(super) fn stored(step: i64, seq: u32, holder: Option<WorkerId>) -> Self {
        Self { step, seq, holder, stored: true, made: None }
    }
}

/// Who hears of which task that a row was added, or with `None` that it was moved.
pub(super) type Told = (WorkerId, TaskId, Option<(i64, u32)>);

/// What is to be written.
#[derive(Default)]
pub(super) struct Effects<'a> {
    pub(super) rows: Vec<(TaskId, &'a Author, &'a Transition)>,
    pub(super) moved: Vec<(TaskId, Standing)>,
    /// Queue rows to take away: task, route, time, and the template whose route it is if `None`.
    pub(super) unqueued: Vec<(TaskId, Option<Arc<str>>, i64, i64)>,
    pub(super) queued: Vec<(TaskId, Arc<str>, i64)>,
    pub(super) offers_gone: HashMap<TaskId, Vec<i64>>,
    pub(super) offers_made: Vec<(TaskId, &'a NewOffer)>,
    pub(super) news: Vec<Told>,
}

impl<'a> Board<'a> {
    pub(super) fn new(now: i64) -> Self {
        Self {
            now,
            tasks: HashMap::new(),
            offers: HashMap::new(),
            present: HashSet::new(),
            effects: Effects::default(),
        }
    }

    pub(super) fn place(&mut self, task: TaskId, standing: Standing) {
        self.tasks.entry(task).or_insert_with(|| Place { stored: standing.clone(), now: standing });
    }

    pub(super) fn place_offer(&mut self, task: TaskId, offer: Offer<'a>) {
        self.offers.entry(task).or_default().push(offer);
    }

    pub(super) fn place_row(&mut self, task: TaskId, step: i64, seq: u32) {
        self.present.insert((task, step, seq));
    }

    /// Applies a change if what it assumes is true and its rows are new; true if it was applied.
    pub(super) fn apply(&mut self, author: &'a Author, change: &'a TaskChange) -> bool {
        let id = change.task;
        if !self.holds(author, change) || self.offers_the_past(change) || !self.add_rows(change) {
            return false;
        }
        let Some(place) = self.tasks.get_mut(&id) else { return false };
        let task = &mut place.now;
        let rows = change.rows.iter();
        self.effects.rows.extend(rows.clone().map(|row| (id, author, row)));

        let others_owner = task.owner.filter(|owner| *author != Author::Worker(*owner));
        let offers = self.offers.entry(id).or_default();
        if let Assumption::OfferHeld { step, seq } = change.assumes {
            let settled = |offer: &Offer<'_>| offer.step == i64::from(step.0) && offer.seq == seq;
            withdraw(&mut self.effects, id, offers, settled);
            // The owner hears of it even if it settled the step itself, as anybody would.
            if let Some(owner) = task.owner {
                let told = rows.map(|row| (owner, id, Some((log_of(row.step), row.seq))));
                self.effects.news.extend(told);
            }
        }
        for offer in &change.offers {
            let step = i64::from(offer.step.0);
            let before = offers.iter().position(|known| known.step == step);
            if before.is_some_and(|at| offers[at].seq == offer.seq) {
                // A change that is sent again must not take the step from who runs it.
                continue;
            }
            let stored = before.map(|at| offers.swap_remove(at)).is_some_and(|known| known.stored);
            offers.push(Offer { step, seq: offer.seq, holder: None, stored, made: Some(offer) });
        }
        match &change.then {
            Then::Keep => return true,
            Then::Queue { state, wake_in, route } => {
                task.state = *state;
                task.ended_at = None;
                task.wake_at = Some(after(self.now, *wake_in));
                task.route = Some(route.as_str().into());
            }
            Then::End { state, degraded } => {
                task.state = *state;
                task.degraded = *degraded;
                task.wake_at = None;
                task.ended_at = Some(self.now);
            }
        }
        task.version += 1;
        task.owner = None;
        withdraw(&mut self.effects, id, offers, |_| true);
        self.effects.news.extend(others_owner.map(|owner| (owner, id, None)));
        true
    }

    fn holds(&self, author: &Author, change: &TaskChange) -> bool {
        let Some(Place { now: task, .. }) = self.tasks.get(&change.task) else { return false };
        match (change.assumes, author) {
            (Assumption::Unmoved { version }, _) => task.version == version,
            (Assumption::Owned { version }, Author::Worker(worker)) => {
                task.version == version && task.owner == Some(*worker)
            }
            (Assumption::OfferHeld { step, seq }, Author::Worker(worker)) => {
                self.offers.get(&change.task).is_some_and(|offers| {
                    offers.iter().any(|offer| {
                        offer.step == i64::from(step.0)
                            && offer.seq == seq
                            && offer.holder == Some(*worker)
                    })
                })
            }
            (Assumption::Owned { .. } | Assumption::OfferHeld { .. }, Author::Operator(_)) => false,
        }
    }

    /// Whether a change offers a step for a row that exists.
    fn offers_the_past(&self, change: &TaskChange) -> bool {
        let exists = |offer: &NewOffer| {
            self.present.contains(&(change.task, i64::from(offer.step.0), offer.seq))
        };
        change.offers.iter().any(exists)
    }

    /// Takes the numbers of a change's rows, all or none.
    fn add_rows(&mut self, change: &TaskChange) -> bool {
        for (taken, row) in change.rows.iter().enumerate() {
            if !self.present.insert((change.task, log_of(row.step), row.seq)) {
                for row in &change.rows[..taken] {
                    self.present.remove(&(change.task, log_of(row.step), row.seq));
                }
                return false;
            }
        }
        true
    }

    /// What all the changes that were applied add up to.
    pub(super) fn finish(self) -> Effects<'a> {
        let mut effects = self.effects;
        for (id, offers) in self.offers {
            let made = offers.into_iter().filter_map(|offer| offer.made);
            effects.offers_made.extend(made.map(|offer| (id, offer)));
        }
        for (id, Place { stored, now }) in self.tasks {
            if now == stored {
                continue;
            }
            if let Some(wake_at) = stored.wake_at {
                effects.unqueued.push((id, stored.route, wake_at, stored.template));
            }
            if let (Some(wake_at), Some(route)) = (now.wake_at, &now.route) {
                effects.queued.push((id, Arc::clone(route), wake_at));
            }
            effects.moved.push((id, now));
        }
        effects
    }
}

/// Removes the offers of a task that a predicate names.
fn withdraw(
    effects: &mut Effects<'_>,
    task: TaskId,
    offers: &mut Vec<Offer<'_>>,
    which: impl Fn(&Offer<'_>) -> bool,
) {
    offers.retain(|offer| {
        if which(offer) && offer.stored {
            effects.offers_gone.entry(task).or_default().push(offer.step);
        }
        !which(offer)
    });
}
