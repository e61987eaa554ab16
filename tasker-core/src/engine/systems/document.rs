//! Keeps what is known of a system in step with the document that all processes share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use tracing::{info, warn};

use super::{StoreClock, System, Systems};
use crate::Json;
use crate::breaker::{Breaker, Call, Cause, SystemPolicy};
use crate::escalation::{Incident, notice};
use crate::history::Failure;
use crate::store::{
    Applied, Collection, Content, Document, DocumentChange, DocumentQuery, StateStore, StoreError,
};

/// How often a change is made anew when others write the same document.
const TRIES: usize = 16;

/// Calls that ended and are not in the document, oldest first.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    calls: VecDeque<(u64, Call)>,
    /// How many there were in all, and how many of them are in the document or not worth it.
    noted: u64,
    written: u64,
}

impl Unwritten {
    /// Notes a call; its number. No more are kept than count.
    pub(super) fn note(&mut self, call: Call, policy: &SystemPolicy) -> u64 {
        self.noted += 1;
        self.calls.push_back((self.noted, call));
        while self.calls.len() > policy.window_calls as usize {
            self.calls.pop_front();
        }
        self.noted
    }

    fn written(&mut self, up_to: u64) {
        self.written = self.written.max(up_to);
        self.calls.retain(|(number, _)| *number > up_to);
    }
}

impl Systems {
    /// A heartbeat was told the sum of the versions of all documents about systems: if one was
    /// written since they were last read, they are read.
    pub(crate) async fn heard(&self, sum: u64) {
        if self.read_at.load(Ordering::Relaxed) == sum {
            return;
        }
        match self.read(self.all()).await {
            Ok(()) => self.read_at.store(sum, Ordering::Relaxed),
            // The next heartbeat is told the same.
            Err(error) => warn!(%error, "how the systems stand cannot be read"),
        }
    }

    async fn read(&self, systems: Vec<Arc<System>>) -> Result<(), StoreError> {
        if systems.is_empty() {
            return Ok(());
        }
        let keys = systems.iter().map(|system| system.name.clone()).collect();
        let query = DocumentQuery::Keys { collection: Collection::System, keys };
        let documents = self.store.read_documents(query).await?;
        for document in &documents.found {
            let Some(system) = systems.iter().find(|system| system.name == document.key) else {
                continue;
            };
            // One that another version of Tasker wrote must not hide the others.
            if let Err(error) = system.learn(document, documents.now) {
                warn!(%error, "how a system stands cannot be read");
            }
        }
        Ok(())
    }

    /// Changes the document of a system as it stands now, on an operator's behalf; what it became.
    pub(crate) async fn operate(
        &self,
        name: &str,
        mut change: impl FnMut(&mut Breaker, Timestamp) -> bool,
    ) -> Result<Breaker, StoreError> {
        let system = self.get(name);
        let _writing = system.writing.lock().await;
        // What is known here may be old, and then nothing would seem to be left to do.
        let query = system.query();
        let documents = self.store.read_documents(query).await?;
        system.view().clock = StoreClock::told(documents.now);
        for document in &documents.found {
            system.learn(document, documents.now)?;
        }
        let changed = |breaker: &mut Breaker, now| {
            change(breaker, now);
            breaker.clone()
        };
        system.change(&*self.store, changed).await
    }
}

impl System {
    fn query(&self) -> DocumentQuery {
        DocumentQuery::Keys { collection: Collection::System, keys: vec![self.name.clone()] }
    }

    /// Writes a failed call, with what else is not written; true if that opened the breaker.
    pub(super) async fn write_failure(
        &self,
        store: &dyn StateStore,
        failure: &Failure,
        policy: &SystemPolicy,
    ) -> Result<bool, StoreError> {
        let number = {
            let mut view = self.view();
            if view.breaker.is_open() {
                return Ok(false);
            }
            let call = Call { at: view.clock.now(), failed: true };
            view.unwritten.note(call, policy)
        };
        let _writing = self.writing.lock().await;
        let (calls, up_to) = {
            let view = self.view();
            if view.unwritten.written >= number {
                return Ok(false);
            }
            let calls: Vec<_> = view.unwritten.calls.iter().map(|(_, call)| *call).collect();
            (calls, view.unwritten.noted)
        };
        let merge = |breaker: &mut Breaker, now| breaker.merge(&calls, failure, policy, now);
        let opened = self.change(store, merge).await?;
        self.view().unwritten.written(up_to);
        Ok(opened)
    }

    /// Changes the document by compare and swap, anew as long as others are quicker.
    ///
    /// `writing` is held by the caller. A change that changes nothing is not written. A write whose
    /// answer was lost is looked for; if others have written over it, it is made once more, which at
    /// worst counts a failed call twice.
    pub(super) async fn change<T>(
        &self,
        store: &dyn StateStore,
        mut change: impl FnMut(&mut Breaker, Timestamp) -> T,
    ) -> Result<T, StoreError> {
        // Of a write that was not applied, or so it seems: what it raised, which did not happen.
        let mut orphan = None;
        let mut failed = None;
        for _ in 0..TRIES {
            let (before, version, now) = {
                let view = self.view();
                (view.breaker.clone(), view.version, to_the_millisecond(view.clock.now()))
            };
            let mut after = before.clone();
            let answer = change(&mut after, now);
            let next = version.map_or(1, |version| version + 1);
            let raised = escalation(&self.name, next, &before, &after);
            if raised.is_some() {
                after.note_raised(next);
            }
            // If it is open now, whoever opened it raised the same.
            let again = |key: &String| raised.as_ref().is_some_and(|raised| raised.key == *key);
            let retracted = orphan.take().filter(|key| !before.is_open() && !again(key));
            let mut writes = Vec::new();
            if after != before {
                writes.push(self.put(&after, version));
            }
            writes.extend(retracted.map(retract));
            writes.extend(over(&self.name, &before, &after));
            orphan = raised.as_ref().map(|raised| raised.key.clone());
            writes.extend(raised);
            if writes.is_empty() {
                return Ok(answer);
            }
            match store.write_documents(writes).await {
                Ok(_) if after == before => return Ok(answer),
                Ok(written) if written.applied.first() == Some(&Applied::Yes) => {
                    self.know(after, next, written.now);
                    return Ok(answer);
                }
                Ok(_) => {}
                Err(error @ StoreError::Damaged { .. }) => return Err(error),
                Err(error) => failed = Some(error),
            }
            let found = match store.read_documents(self.query()).await {
                Ok(documents) => documents,
                Err(error) => {
                    self.stay_away();
                    return Err(error);
                }
            };
            if let Some(document) = found.found.first() {
                self.learn(document, found.now)?;
                if document.version == next && self.view().breaker == after {
                    return Ok(answer);
                }
            }
        }
        Err(failed.unwrap_or_else(|| StoreError::Unavailable {
            reason: format!("others keep writing how system `{}` stands", self.name),
            source: None,
        }))
    }

    fn put(&self, breaker: &Breaker, version: Option<u64>) -> DocumentChange {
        let state = breaker.state().as_str().to_owned();
        // It has only texts, numbers and times: it has a JSON form.
        let body = Json::of(breaker).unwrap_or_else(|_| Json::null());
        DocumentChange {
            collection: Collection::System,
            key: self.name.clone(),
            expects: version,
            put: Some(Content { state, due_in: None, body }),
        }
    }

    /// Takes over what was read, unless more is known.
    pub(super) fn learn(&self, document: &Document, now: Timestamp) -> Result<(), StoreError> {
        let breaker = breaker_of(document)?;
        self.know(breaker, document.version, now);
        Ok(())
    }

    fn know(&self, breaker: Breaker, version: u64, now: Timestamp) {
        let mut view = self.view();
        if view.version.is_some_and(|known| known >= version) {
            return;
        }
        view.version = Some(version);
        view.clock = StoreClock::told(now);
        view.away_until = None;
        let before = std::mem::replace(&mut view.breaker, breaker);
        let (was, is) = (before.is_open(), view.breaker.is_open());
        if was != is {
            let noted = view.unwritten.noted;
            view.unwritten.written(noted);
            view.allowance.start_anew();
            // Others may have parked tasks; a claim that finds none says so.
            view.backlog();
        }
        match (was, view.breaker.cause()) {
            (false, Some(cause)) => warn!(system = self.name, %cause, "a breaker is open"),
            (true, None) => info!(system = self.name, "a breaker is closed"),
            _ => {}
        }
        let changed = before.next_probe() != view.breaker.next_probe() || was != is;
        drop(view);
        if changed {
            self.arise();
        }
    }
}

/// People read the times of a breaker: no more of them than they care for.
fn to_the_millisecond(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}

/// What the document of a system says.
pub(crate) fn breaker_of(document: &Document) -> Result<Breaker, StoreError> {
    document.body.to().map_err(|error| StoreError::Damaged {
        reason: format!("how system `{}` stands cannot be read", document.key),
        source: Some(error.into()),
    })
}

/// What is raised with the write that opens a breaker; an operator who opens one knows.
///
/// It is named after the version that is written: of several processes that find a system down at
/// once only one gets to write that version, and all of them raise one and the same.
fn escalation(
    system: &str,
    version: u64,
    before: &Breaker,
    after: &Breaker,
) -> Option<DocumentChange> {
    let cause = after.cause().filter(|_| !before.is_open())?;
    let (Cause::Failures { .. }, Some(since)) = (cause, after.since()) else { return None };
    let (system, reason) = (system.to_owned(), cause.to_string());
    let key = key(&system, version);
    Some(Incident::BreakerOpened { system, since, reason }.raise(key))
}

fn key(system: &str, version: u64) -> String {
    format!("system/{system}/{version}")
}

/// What is written with the change that ends what was raised: a notice under the same key.
fn over(system: &str, before: &Breaker, after: &Breaker) -> Option<DocumentChange> {
    let raised = before.raised().filter(|_| after.raised() != before.raised())?;
    Some(notice(key(system, raised)))
}

fn retract(key: String) -> DocumentChange {
    DocumentChange { collection: Collection::Escalation, key, expects: Some(1), put: None }
}
