//! Sees to documents whose time has come: escalations are delivered, overdue tasks looked at.
//!
//! Every renewal of the lease tells when the first document is due, and whoever commits one in this
//! process says so; nobody looks in between. A look reads what is due, decides what each document
//! says next, and writes all of that by compare and swap, so that of several workers one goes on.

mod deliver;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{error, warn};

use super::Core;
use super::mail::StoreClock;
use super::patience::Patience;
use crate::TaskId;
use crate::escalation::{Alarm, Record, overdue};
use crate::store::{
    Applied, Collection, Content, Document, DocumentChange, DocumentQuery, Documents, StoreError,
    StoredTask,
};

use self::deliver::Claimed;

/// How many documents are seen to at once.
const AT_ONCE: usize = 64;

/// When a document is looked at again that this version of Tasker cannot read, and when the store
/// is asked again after it refused what was written.
const LATER: Duration = Duration::from_secs(60);

/// Sees to documents until the worker is stopped and what it has begun is done.
pub(super) async fn run(core: Arc<Core>) {
    let mut desk = Desk::new(core.clone());
    let mut told = core.next_due.subscribe();
    loop {
        let stopping = core.stop.is_cancelled();
        if stopping && desk.at_work.is_empty() {
            return;
        }
        let next = desk.next.filter(|_| !stopping && desk.at_work.len() < AT_ONCE);
        tokio::select! {
            biased;
            () = core.kill.cancelled() => return,
            () = core.stop.cancelled(), if !stopping => {}
            Some(ended) = desk.at_work.join_next() => desk.ended(ended),
            Ok(()) = told.changed() => {
                let at = *told.borrow_and_update();
                at.into_iter().for_each(|at| desk.look_at(at));
            }
            () = core.shared.raised.notified(), if !stopping => desk.look_at(Instant::now()),
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                // Not cut short by an orderly stop: what it claims is delivered at once.
                let _ = core.kill.run_until_cancelled(desk.look()).await;
            }
        }
    }
}

struct Desk {
    core: Arc<Core>,
    /// Deliveries under way; each tells when its document is due again.
    at_work: JoinSet<Option<Duration>>,
    /// When to look next.
    next: Option<Instant>,
    patience: Patience,
}

/// What is to be written after a look.
#[derive(Default)]
struct Plan {
    changes: Vec<DocumentChange>,
    /// Claims among them, with their places there.
    claims: Vec<(usize, Claimed)>,
    raises: bool,
}

impl Desk {
    fn new(core: Arc<Core>) -> Self {
        Self { core, at_work: JoinSet::new(), next: None, patience: Patience::new() }
    }

    fn look_at(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    fn ended(&mut self, ended: Result<Option<Duration>, JoinError>) {
        match ended {
            Ok(due_in) => due_in.into_iter().for_each(|wait| self.look_at(Instant::now() + wait)),
            // Its document is due again when its claim is over.
            Err(error) => warn!(%error, "a delivery ended badly"),
        }
    }

    async fn look(&mut self) {
        self.next = None;
        match self.try_look().await {
            Ok(()) => self.patience.reset(),
            Err(error @ StoreError::Damaged { .. }) => {
                error!(%error, "escalations cannot be seen to");
                self.look_at(Instant::now() + LATER);
            }
            Err(error) => {
                // Whatever was claimed with an answer that was lost is due again later.
                self.look_at(Instant::now());
                if self.patience.tells() {
                    warn!(%error, "escalations cannot be seen to yet");
                }
                // However long it takes, a stop is not held up by it.
                let _ = self.core.stop.run_until_cancelled(self.patience.pause()).await;
            }
        }
    }

    async fn try_look(&mut self) -> Result<(), StoreError> {
        let store = self.core.shared.store.clone();
        let limit = AT_ONCE.saturating_sub(self.at_work.len()).max(1);
        let Documents { now, found } = store.read_documents(DocumentQuery::Due { limit }).await?;
        let clock = StoreClock::told(now);
        let full = found.len() >= limit;
        let mut plan = Plan::default();
        for document in found {
            match document.collection {
                // The workers that call them look after them.
                Collection::System => {}
                Collection::Alarm => self.check(document, &mut plan).await?,
                Collection::Escalation => self.claim(document, clock, &mut plan).await?,
            }
        }
        if plan.changes.is_empty() {
            return Ok(());
        }
        let waits: Vec<_> = plan.changes.iter().map(due_in).collect();
        let written = store.write_documents(plan.changes).await?;
        let applied = |at: usize| written.applied.get(at) == Some(&Applied::Yes);
        let mut delivered = Vec::new();
        for (at, claimed) in plan.claims.into_iter().filter(|(at, _)| applied(*at)) {
            if !claimed.sinks.is_empty() {
                delivered.push(at);
                self.at_work.spawn(deliver::run(self.core.clone(), claimed, clock));
            }
        }
        for (at, wait) in waits.into_iter().enumerate() {
            // What is being delivered is due when that has ended.
            if let Some(wait) = wait.filter(|_| applied(at) && !delivered.contains(&at)) {
                self.look_at(Instant::now() + wait);
            }
        }
        if full || plan.raises {
            self.look_at(Instant::now());
        }
        Ok(())
    }

    /// Begins to deliver an escalation.
    async fn claim(
        &self,
        document: Document,
        clock: StoreClock,
        plan: &mut Plan,
    ) -> Result<(), StoreError> {
        let mut record = match Record::read(&document) {
            Ok(record) => record,
            Err(error) => {
                warn!(%error, key = document.key, "an escalation cannot be read");
                plan.changes.push(put_off(document));
                return Ok(());
            }
        };
        if let Some(task) = record.incident.task().filter(|_| record.lacks_names())
            && let Some(stored) = self.load(task).await?
        {
            record.name(&stored);
        }
        let sinks: Vec<_> = self.core.shared.sinks.iter().map(|sink| sink.name()).collect();
        let now = clock.now();
        let sinks = record.claim(&document.key, &sinks, now);
        let Ok(change) = record.replaces(&document, now) else { return Ok(()) };
        plan.claims.push((plan.changes.len(), Claimed { record, document, sinks }));
        plan.changes.push(change);
        Ok(())
    }

    /// Looks whether a task takes too long.
    async fn check(&self, document: Document, plan: &mut Plan) -> Result<(), StoreError> {
        let Ok(task) = document.key.parse::<TaskId>() else {
            plan.changes.push(put_off(document));
            return Ok(());
        };
        let alarm: Alarm = document.body.to().unwrap_or_default();
        let stored = self.core.shared.store.load(task).await;
        let found = match stored {
            Ok(stored) => stored.map(|stored| overdue(&stored, alarm)),
            Err(StoreError::Damaged { .. }) => {
                plan.changes.push(put_off(document));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let next_check = found.as_ref().and_then(|found| found.next_check);
        // Nothing is kept of a task that is not stored any more.
        let alarm = if found.is_some() { alarm } else { Alarm::default() };
        plan.changes.push(alarm.armed(task, Some(document.version), next_check));
        let raised = found.map(|found| found.raise).unwrap_or_default();
        plan.raises |= !raised.is_empty();
        plan.changes.extend(raised.into_iter().map(|(key, incident)| incident.raise(key)));
        Ok(())
    }

    /// A task; `None` as well if it cannot be read: what is known of it must do.
    async fn load(&self, task: TaskId) -> Result<Option<StoredTask>, StoreError> {
        match self.core.shared.store.load(task).await {
            Err(StoreError::Damaged { .. }) => Ok(None),
            answer => answer,
        }
    }
}

/// Leaves a document as it is for a while.
fn put_off(document: Document) -> DocumentChange {
    let Document { collection, key, version, state, body, .. } = document;
    let put = Some(Content { state, due_in: Some(LATER), body });
    DocumentChange { collection, key, expects: Some(version), put }
}

fn due_in(change: &DocumentChange) -> Option<Duration> {
    change.put.as_ref()?.due_in
}
