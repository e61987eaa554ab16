//! What people do about escalations: list them, take note of them, settle them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tracing::warn;

use super::{Operator, Tasker};
use crate::engine::Shared;
use crate::escalation::{
    Alarm, Escalation, EscalationState, Record, SeenTo, keys_of, overdue, still_stands,
};
use crate::snapshot::Snapshot;
use crate::store::{
    Applied, Collection, Document, DocumentChange, DocumentQuery, Documents, StoreError, StoredTask,
};

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

/// An action is committed in less time than this.
const SOON: SignedDuration = SignedDuration::from_secs(5);

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

    /// After an operator's action: settles the escalations about a task as it stood that do not
    /// stand any more.
    ///
    /// As well as may be: the action stands whether or not this succeeds, and what is left open
    /// waits for a person.
    pub(crate) async fn settle_escalations(
        &self,
        before: &StoredTask,
        after: &Snapshot,
        operator: &Operator,
    ) {
        let settled = self.until_first(|| self.try_settle(before, after, operator)).await;
        if let Err(error) = settled {
            warn!(%error, task = %before.id, "its escalations stay open for a person");
        }
    }

    /// After an operator's action: sets the alarm of a task that goes on, since the one of a task
    /// that had ended is gone.
    pub(crate) async fn set_alarm(&self, task: &StoredTask) {
        if let Err(error) = self.until_first(|| self.try_set_alarm(task)).await {
            warn!(%error, task = %task.id, "nobody will be told if it takes too long");
        }
    }

    /// Before an operator's action: makes sure that somebody looks at the task soon after it, should
    /// the process die, or the store be away, before its alarm is [set](Self::set_alarm).
    ///
    /// Who looks finds out when to look next, or that there is nothing to be seen.
    pub(crate) async fn set_alarm_ahead(&self, task: &StoredTask) -> Result<(), StoreError> {
        let mut limits = task.template.steps().iter().map(|step| step.expected_within);
        if task.template.deadline().is_none() && limits.all(|limit| limit.is_none()) {
            return Ok(());
        }
        let (collection, keys) = (Collection::Alarm, vec![task.id.to_string()]);
        let found = self.store.read_documents(DocumentQuery::Keys { collection, keys }).await?;
        let document = found.found.into_iter().next();
        let due_at = document.as_ref().and_then(|document| document.due_at);
        if due_at.is_some_and(|at| at.duration_since(found.now) <= SOON) {
            return Ok(());
        }
        let alarm: Option<Alarm> = document.as_ref().and_then(|document| document.body.to().ok());
        let expects = document.map(|document| document.version);
        let soon = alarm.unwrap_or_default().armed(task.id, expects, Some(SOON.unsigned_abs()));
        // If somebody else was quicker, it was to set it as well.
        self.store.write_documents(vec![soon]).await?;
        Ok(())
    }

    /// Tries anew as long as somebody else is quicker.
    async fn until_first<F>(&self, attempt: impl Fn() -> F) -> Result<(), StoreError>
    where
        F: Future<Output = Result<Vec<DocumentChange>, StoreError>>,
    {
        for _ in 0..TRIES {
            let changes = attempt().await?;
            if changes.is_empty() {
                break;
            }
            let written = self.store.write_documents(changes).await?;
            if written.applied.iter().all(|applied| *applied == Applied::Yes) {
                break;
            }
        }
        Ok(())
    }

    async fn try_settle(
        &self,
        before: &StoredTask,
        after: &Snapshot,
        operator: &Operator,
    ) -> Result<Vec<DocumentChange>, StoreError> {
        let keys = keys_of(before);
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let collection = Collection::Escalation;
        let query = DocumentQuery::Keys { collection, keys };
        let Documents { now, found } = self.store.read_documents(query).await?;
        let settled = found.iter().filter_map(|document| {
            let mut record = read(document)?;
            let settles =
                !still_stands(&record.incident, after) && record.resolve(SeenTo::by(operator, now));
            settles.then(|| record.replaces(document, now).ok()).flatten()
        });
        Ok(settled.collect())
    }

    async fn try_set_alarm(&self, task: &StoredTask) -> Result<Vec<DocumentChange>, StoreError> {
        let found = overdue(task, Alarm::default());
        if found.raise.is_empty() && found.next_check.is_none() {
            return Ok(Vec::new());
        }
        let (collection, keys) = (Collection::Alarm, vec![task.id.to_string()]);
        let query = DocumentQuery::Keys { collection, keys };
        let document = self.store.read_documents(query).await?.found.into_iter().next();
        let alarm = document.as_ref().and_then(|document| document.body.to().ok());
        let alarm: Alarm = alarm.unwrap_or_default();
        let found = overdue(task, alarm);
        // What is overdue already is raised by whoever looks.
        let at_once = (!found.raise.is_empty()).then_some(Duration::ZERO);
        let expects = document.map(|document| document.version);
        Ok(vec![alarm.armed(task.id, expects, at_once.or(found.next_check))])
    }
}
