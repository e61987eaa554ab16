//! Processes of a storm: each a client with a worker, which die, stop, hang and lose their store.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::world::World;
use super::{Storm, workflows};
use crate::escalation::{Escalation, SinkError, sink_fn};
use crate::store::StateStore;
use crate::testing::{FaultyStore, Loss};
use crate::{Tasker, Worker};

/// A process, again and again.
pub(super) struct Process {
    store: Arc<dyn StateStore>,
    /// Whether it lacks a handler.
    lacks_side: bool,
    present: Mutex<Life>,
}

/// One life of a process.
struct Life {
    store: FaultyStore<Arc<dyn StateStore>>,
    tasker: Tasker,
    worker: Option<Worker>,
}

impl Life {
    fn begin(store: Arc<dyn StateStore>, world: &Arc<World>, lacks_side: bool) -> Self {
        let store = FaultyStore::new(store);
        let mut tasker = Tasker::builder(store.clone());
        for workflow in workflows::all(world, lacks_side) {
            tasker = match lacks_side {
                true => tasker.register_partial(workflow),
                false => tasker.register(workflow),
            };
        }
        for sink in ["pager", "mailbox"] {
            let world = world.clone();
            let deliver = move |escalation: Escalation| {
                // The mailbox is full every now and then.
                let attempts = escalation.deliveries.get(sink).map_or(0, |it| it.attempts);
                let full = sink == "mailbox" && attempts == 1 && !world.is_calm();
                async move { if full { Err(SinkError::new("it is full")) } else { Ok(()) } }
            };
            tasker = tasker.escalate_to(sink_fn(sink, deliver));
        }
        let tasker = tasker.build().unwrap();
        let worker = tasker.worker().slots(4).lease(world.pace.lease).poll(world.pace.lease);
        Self { store, worker: Some(worker.start()), tasker }
    }
}

impl Process {
    pub(super) fn start(store: Arc<dyn StateStore>, world: &Arc<World>, lacks_side: bool) -> Self {
        let present = Mutex::new(Life::begin(store.clone(), world, lacks_side));
        Self { store, lacks_side, present }
    }

    fn present(&self) -> std::sync::MutexGuard<'_, Life> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tasker(&self) -> Tasker {
        self.present().tasker.clone()
    }

    fn start_again(&self, world: &Arc<World>) {
        let next = Life::begin(self.store.clone(), world, self.lacks_side);
        *self.present() = next;
    }

    /// From now on its store answers; what it was stays.
    pub(super) fn calm_down(&self) {
        let store = self.present().store.clone();
        store.fail_next(0);
        store.fail_call(0, Loss::OfCall);
    }

    pub(super) async fn stop(&self, grace: Duration) {
        let worker = self.present().worker.take();
        if let Some(worker) = worker {
            worker.shutdown(grace).await;
        }
    }
}

impl Storm {
    /// What happens to one of the processes.
    pub(super) async fn processes_come_and_go(self: Arc<Self>, at: usize) {
        let mut dice = self.dice(10 + at);
        let process = &self.processes[at];
        while self.moment(self.pace.timeout * (1 + dice.below(8) as u32)).await {
            if !self.forecast().faults {
                continue;
            }
            let store = process.present().store.clone();
            match dice.below(6) {
                0 => {
                    // It is cut off in the middle of a call, and dead a moment later.
                    let loss = [Loss::OfCall, Loss::OfAnswer][dice.below(2)];
                    store.crash_at(store.calls() + 1 + dice.below(10), loss);
                    tokio::time::sleep(self.pace.timeout).await;
                    process.start_again(&self.world);
                }
                1 => process.start_again(&self.world),
                2 => {
                    let grace = self.pace.timeout * dice.below(3) as u32 / 2;
                    process.stop(grace).await;
                    process.start_again(&self.world);
                }
                3 => store.fail_next(1 + dice.below(4)),
                // Long enough for its lease to run out while its handlers go on.
                4 => store.fail_next(5 + dice.below(30)),
                _ => store.fail_call(store.calls() + 1 + dice.below(5), Loss::OfAnswer),
            }
        }
        // What is cut off for ever would never calm down.
        if self.forecast().faults {
            process.start_again(&self.world);
        }
    }
}
