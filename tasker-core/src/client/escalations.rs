//! What people do about escalations: list them, take note of them, settle them.

use jiff::Timestamp;
use tracing::warn;

use super::{Operator, Tasker};
use crate::engine::Shared;
use crate::escalation::{Escalation, EscalationState, Record, SeenTo};
use crate::store::{Applied, Collection, Document, DocumentQuery, Documents, StoreError};

/// Which escalations to list.
#[derive(Clone, Debug, Default)]
pub struct EscalationQuery {
    /// Only those in this state.
    pub state: Option<EscalationState>,
    /// Only those after this place: [`EscalationPage::next`] of the page before.
    pub after: Option<EscalationCursor>,
    /// At most this many; 0 means 100, and no page is longer than 1,000.
    pub limit: usize,
}

/// Where a page of escalations begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EscalationCursor {
    raised_at: Timestamp,
    key: String,
}

/// A page of escalations, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EscalationPage {
    /// The escalations.
    pub escalations: Vec<Escalation>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<EscalationCursor>,
}

/// Why an escalation was not seen to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EscalateError {
    /// There is no such escalation.
    #[error("there is no escalation `{0}`")]
    NotFound(String),
    /// It has been settled: there is nothing more to take note of.
    #[error("escalation `{key}` was resolved by {} at {}: {}", .seen.by, .seen.at, .seen.note)]
    Resolved {
        /// Which.
        key: String,
        /// By whom.
        seen: SeenTo,
    },
    /// Others kept writing it: look at it and try again.
    #[error("the escalation is being written by others: look at it and try again")]
    Contended,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How often a document is written anew when others write it at the same time.
const TRIES: usize = 16;

impl Tasker {
    /// Escalations, newest first, a page at a time.
    ///
    /// Neither a task's context nor a result is in one. Those that another version of Tasker wrote
    /// are left out.
    ///
    /// # Errors
    /// The store failed.
    pub async fn escalations(&self, query: EscalationQuery) -> Result<EscalationPage, StoreError> {
        let query = DocumentQuery::List {
            collection: Collection::Escalation,
            state: query.state.map(|state| state.as_str().to_owned()),
            after: query.after.map(|after| (after.raised_at, after.key)),
            limit: query.limit,
        };
        let size = query.page_size();
        let Documents { found, .. } = self.shared.store.read_documents(query).await?;
        let last = found.last().filter(|_| found.len() >= size);
        let next = last.map(|last| {
            let (raised_at, key) = (last.created_at, last.key.clone());
            EscalationCursor { raised_at, key }
        });
        let mut escalations = Vec::with_capacity(found.len());
        for document in found {
            if let Some(mut record) = read(&document) {
                self.shared.name(&mut record).await?;
                escalations.push(record.escalation(&document));
            }
        }
        Ok(EscalationPage { escalations, next })
    }

    /// Takes note of an escalation: somebody is seeing to it, and it is delivered no more.
    ///
    /// Who did so first, and what they said, is kept; doing it again changes nothing.
    ///
    /// # Errors
    /// [`EscalateError::Resolved`] if it has been settled; see there for the others.
    pub async fn acknowledge(
        &self,
        key: &str,
        operator: &Operator,
    ) -> Result<Escalation, EscalateError> {
        let act = |record: &mut Record, seen| record.acknowledge(seen);
        let escalation = self.see_to(key, operator, act).await?;
        match escalation.resolved {
            Some(seen) => Err(EscalateError::Resolved { key: key.to_owned(), seen }),
            None => Ok(escalation),
        }
    }

    /// Settles an escalation: there is nothing more to be done about it.
    ///
    /// Nothing happens to its task. Acting on the task settles its escalations by itself. Who did
    /// so first, and what they said, is kept; doing it again changes nothing.
    ///
    /// # Errors
    /// See [`EscalateError`].
    pub async fn resolve_escalation(
        &self,
        key: &str,
        operator: &Operator,
    ) -> Result<Escalation, EscalateError> {
        self.see_to(key, operator, |record, seen| record.resolve(seen)).await
    }

    /// Reads, changes and writes, anew as long as somebody else was quicker.
    async fn see_to(
        &self,
        key: &str,
        operator: &Operator,
        act: impl Fn(&mut Record, SeenTo) -> bool,
    ) -> Result<Escalation, EscalateError> {
        let not_found = || EscalateError::NotFound(key.to_owned());
        // No store has one with a NUL in its key, and not every store can be asked for it.
        if key.contains('\0') {
            return Err(not_found());
        }
        for _ in 0..TRIES {
            let (collection, keys) = (Collection::Escalation, vec![key.to_owned()]);
            let query = DocumentQuery::Keys { collection, keys };
            let Documents { now, found } = self.shared.store.read_documents(query).await?;
            let document = found.into_iter().next().ok_or_else(not_found)?;
            let mut record = Record::read(&document).map_err(unreadable)?;
            self.shared.name(&mut record).await?;
            if !act(&mut record, SeenTo::by(operator, now)) {
                return Ok(record.escalation(&document));
            }
            let change = record.replaces(&document, now).map_err(unreadable)?;
            let written = self.shared.store.write_documents(vec![change]).await?;
            if written.applied == [Applied::Yes] {
                return Ok(record.escalation(&document));
            }
        }
        Err(EscalateError::Contended)
    }
}

fn unreadable(error: serde_json::Error) -> StoreError {
    let reason = "an escalation cannot be read".to_owned();
    StoreError::Damaged { reason, source: Some(error.into()) }
}

/// What a document says, unless another version of Tasker wrote it.
fn read(document: &Document) -> Option<Record> {
    Record::read(document)
        .inspect_err(|error| warn!(%error, key = document.key, "an escalation cannot be read"))
        .ok()
}

impl Shared {
    /// Gives a record that has not been delivered yet the names of its task and step.
    async fn name(&self, record: &mut Record) -> Result<(), StoreError> {
        let Some(task) = record.incident.task().filter(|_| record.lacks_names()) else {
            return Ok(());
        };
        match self.store.load(task).await {
            Ok(Some(stored)) => record.name(&stored),
            // What is known of a task that cannot be read must do.
            Ok(None) | Err(StoreError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
