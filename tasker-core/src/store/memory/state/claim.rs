//! What a claim hands out: queued tasks, offered steps, news.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::State;
use crate::store::{ClaimRequest, Claimed, NewOffer, OfferedStep, Work};
use crate::{StepIndex, TaskId, TaskState, WorkerId};

impl State {
    pub(crate) fn claim(&mut self, request: &ClaimRequest, now: Timestamp) -> Claimed {
        let Some(worker) = self.workers.get_mut(&request.worker) else {
            return Claimed::LeaseLost;
        };
        let news = std::mem::take(&mut worker.news);
        let mut tasks = Vec::new();
        let mut offers = Vec::new();
        if let Some(holding) = &request.holding {
            let holding: BTreeSet<_> = holding.iter().copied().collect();
            let forgotten: Vec<_> = worker.owned.difference(&holding).copied().collect();
            tasks.extend(forgotten.into_iter().filter_map(|id| self.load(id, now)));
            offers.extend(self.held_offers(request.worker, now));
        }
        for id in self.due(request, now) {
            self.dequeue(id);
            if let Some(task) = self.tasks.get_mut(&id) {
                task.owner = Some(request.worker);
                task.version += 1;
                if task.state != TaskState::Compensating {
                    task.state = TaskState::InProgress;
                }
            }
            if let Some(worker) = self.workers.get_mut(&request.worker) {
                worker.owned.insert(id);
            }
            tasks.extend(self.load(id, now));
        }
        for (id, step) in self.offered(request) {
            self.withdraw(id, step);
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            let Some(offer) = task.offers.get_mut(&step) else { continue };
            offer.holder = Some(request.worker);
            let offer = offer.offer.clone();
            offers.extend(self.offered_step(id, &offer, now));
        }
        let next_in = self.next_in(request, now);
        Claimed::Work(Work { now, tasks, offers, news, next_in })
    }

    /// The queued tasks that a claim gets, by rank: each route has a turn before one has two.
    fn due(&self, request: &ClaimRequest, now: Timestamp) -> Vec<TaskId> {
        let mut turns = Vec::new();
        for lanes in request.routes.iter().filter_map(|route| self.queue.get(route)) {
            let due = lanes.iter().flat_map(|(priority, lane)| {
                let first = lane.iter().take(request.tasks);
                let due = first.take_while(|(wake_at, _)| *wake_at <= now);
                due.map(|(wake_at, id)| (priority.rank(*wake_at), *id))
            });
            let mut due: Vec<_> = due.collect();
            due.sort_unstable();
            let due = due.into_iter().take(request.tasks).enumerate();
            turns.extend(due.map(|(turn, (rank, id))| (turn, rank, id)));
        }
        turns.sort_unstable();
        turns.truncate(request.tasks);
        turns.sort_unstable_by_key(|(_, rank, id)| (*rank, *id));
        turns.into_iter().map(|(_, _, id)| id).collect()
    }

    fn offered(&self, request: &ClaimRequest) -> Vec<(TaskId, StepIndex)> {
        let open = request.routes.iter().filter_map(|route| self.offers.get(route));
        open.flatten().copied().take(request.offers).collect()
    }

    fn held_offers(&self, worker: WorkerId, now: Timestamp) -> Vec<OfferedStep> {
        let held = self.tasks.iter().flat_map(|(id, task)| {
            let held = task.offers.values().filter(|offer| offer.holder == Some(worker));
            held.map(|offer| (*id, offer.offer.clone()))
        });
        held.filter_map(|(id, offer)| self.offered_step(id, &offer, now)).collect()
    }

    fn offered_step(&self, id: TaskId, offer: &NewOffer, now: Timestamp) -> Option<OfferedStep> {
        let mut task = self.load(id, now)?;
        let needed = |step| step == offer.step || offer.needs.contains(&step);
        task.rows.retain(|row| row.transition.step.is_none_or(needed));
        Some(OfferedStep { task, step: offer.step, seq: offer.seq })
    }

    fn next_in(&self, request: &ClaimRequest, now: Timestamp) -> Option<Duration> {
        let queues = request.routes.iter().filter_map(|route| self.queue.get(route));
        let heads = queues.flat_map(BTreeMap::values).filter_map(BTreeSet::first);
        let next = heads.map(|(wake_at, _)| *wake_at).min()?;
        Some(Duration::try_from(next.duration_since(now)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use jiff::SignedDuration;

    use super::*;
    use crate::store::{Heartbeat, NewTask, Route};
    use crate::{Json, Priority, StepTemplate, TaskTemplate};

    #[test]
    fn a_flood_of_urgent_tasks_delays_the_others_and_starves_none() {
        let template = TaskTemplate::builder("refund").step(StepTemplate::new("pay"));
        let template = Arc::new(template.build().unwrap());
        let new = |priority| NewTask {
            id: TaskId::new(),
            template: Arc::clone(&template),
            context: Json::null(),
            idempotency_key: None,
            delay: Duration::ZERO,
            priority,
        };
        let mut state = State::default();
        let (worker, lease) = (WorkerId::new(), Some(Duration::from_secs(86_400)));
        let (name, running) = ("worker".to_owned(), Vec::new());
        state.renew(&Heartbeat { worker, name, lease, spare: 0, running }, Timestamp::UNIX_EPOCH);
        let routes = Arc::new([Route::of(&template)].into());
        let request = ClaimRequest { worker, routes, tasks: 1, offers: 0, holding: None };

        let patient = new(Priority::Normal);
        let id = patient.id;
        state.create(vec![patient], None, Timestamp::UNIX_EPOCH);
        // Twice as many urgent tasks come as can be taken, every minute.
        let taken = (0..60).find(|minute| {
            let now = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(*minute);
            state.create(vec![new(Priority::High), new(Priority::High)], None, now);
            let Claimed::Work(work) = state.claim(&request, now) else { panic!("it lives") };
            work.tasks[0].id == id
        });
        // The urgent ones of the first ten minutes go before it, those of later ones do not.
        assert_eq!(taken, Some(20));
    }
}
