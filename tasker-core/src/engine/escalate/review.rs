//! Looks at what was raised about a task or a system: what is over is resolved, what takes too long
//! is raised, and the alarm of the task is set for the next time.
//!
//! Every change that may settle something leaves a notice, in the same transaction. Whoever made it
//! looks at once; if it does not live to do so a worker finds the notice.

use std::time::Duration;

use tracing::warn;

use super::super::{Shared, breaker_of};
use crate::TaskId;
use crate::breaker::Breaker;
use crate::escalation::{Alarm, Incident, Record, Review, keys_of, review, review_of_system};
use crate::store::{
    Applied, Collection, Document, DocumentChange, DocumentQuery, Documents, StoreError, StoredTask,
};

/// How often documents are written anew when others write them at the same time.
const TRIES: usize = 16;

impl Shared {
    /// Looks at a task, as it was read or as it is; how long until somebody should look at a
    /// document.
    pub(super) async fn review(
        &self,
        task: TaskId,
        mut known: Option<StoredTask>,
    ) -> Result<Option<Duration>, StoreError> {
        for _ in 0..TRIES {
            let stored = match known.take() {
                Some(stored) => Some(stored),
                None => self.store.load(task).await?,
            };
            let alarm = self.documents(Collection::Alarm, vec![task.to_string()]).await?;
            let alarm = alarm.found.into_iter().next();
            let (mut changes, next_check) = match &stored {
                Some(stored) => {
                    let keys = keys_of(stored);
                    let raised = self.documents(Collection::Escalation, keys).await?;
                    let body = alarm.as_ref().and_then(|alarm| alarm.body.to().ok());
                    let Review { changes, next_check } =
                        review(stored, body.unwrap_or_default(), &raised);
                    (changes, next_check)
                }
                // It was deleted.
                None => (Vec::new(), None),
            };
            let looks_on = !changes.is_empty();
            changes.extend(set(task, stored.is_some(), alarm, next_check));
            if self.write(changes).await? {
                return Ok(if looks_on { Some(Duration::ZERO) } else { next_check });
            }
        }
        Err(contended())
    }

    /// Looks at what was raised when the breaker of a system opened.
    pub(super) async fn review_system(&self, key: &str) -> Result<Option<Duration>, StoreError> {
        for _ in 0..TRIES {
            let raised = self.documents(Collection::Escalation, vec![key.to_owned()]).await?;
            let Some(document) = raised.found.first() else { return Ok(None) };
            let Ok(record) = Record::read(document) else { return Ok(None) };
            let Incident::BreakerOpened { system, .. } = record.incident else { return Ok(None) };
            let systems = self.documents(Collection::System, vec![system]).await?;
            let breaker = systems.found.first().map(breaker_of).transpose()?;
            let breaker = breaker.unwrap_or_else(Breaker::default);
            let Some(change) = review_of_system(document, &breaker, systems.now) else {
                return Ok(None);
            };
            if self.write(vec![change]).await? {
                return Ok(Some(Duration::ZERO));
            }
        }
        Err(contended())
    }

    /// Looks at a task that was moved a moment ago, and deletes the notice of that.
    ///
    /// What was done stands whether or not this succeeds; the notice stays until it does.
    pub(crate) async fn review_at_once(&self, moved: StoredTask, notice: DocumentChange) {
        let id = moved.id;
        let looked = match self.review(id, Some(moved)).await {
            Ok(_) => {
                let done = DocumentChange { expects: Some(1), put: None, ..notice };
                self.write(vec![done]).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = looked {
            warn!(%error, task = %id, "what was raised about it is seen to later");
        }
    }

    async fn documents(
        &self,
        collection: Collection,
        keys: Vec<String>,
    ) -> Result<Documents, StoreError> {
        self.store.read_documents(DocumentQuery::Keys { collection, keys }).await
    }

    /// Writes documents; false if somebody else was quicker with one of them.
    async fn write(&self, changes: Vec<DocumentChange>) -> Result<bool, StoreError> {
        if changes.is_empty() {
            return Ok(true);
        }
        let written = self.store.write_documents(changes).await?;
        Ok(written.applied.iter().all(|applied| *applied == Applied::Yes))
    }
}

/// Sets the alarm of a task, or puts it away if there is nothing more to see; nothing is kept of a
/// task that is not stored any more.
fn set(
    task: TaskId,
    is_stored: bool,
    alarm: Option<Document>,
    next_check: Option<Duration>,
) -> Option<DocumentChange> {
    if alarm.is_none() && next_check.is_none() {
        return None;
    }
    let known = alarm.as_ref().filter(|_| is_stored);
    let body: Option<Alarm> = known.and_then(|alarm| alarm.body.to().ok());
    let version = alarm.map(|alarm| alarm.version);
    Some(body.unwrap_or_default().armed(task, version, next_check))
}

fn contended() -> StoreError {
    let reason = "others keep writing what was raised".to_owned();
    StoreError::Unavailable { reason, source: None }
}
