//! How the systems stand that steps depend on, and what operators do about it.

use super::{Operator, Tasker};
use crate::breaker::{Breaker, SystemStatus};
use crate::engine::breaker_of;
use crate::store::{Collection, Document, DocumentQuery, StoreError};
use crate::{TaskId, Why};

/// The longest page of documents.
const PAGE: usize = 1000;

impl Tasker {
    /// How the systems stand that steps depend on, by name: those that are registered here, and
    /// those that any process ever found failing.
    ///
    /// # Errors
    /// The store failed.
    pub async fn systems(&self) -> Result<Vec<SystemStatus>, StoreError> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let (collection, state) = (Collection::System, None);
            let query = DocumentQuery::List { collection, state, after, limit: PAGE };
            let page = self.shared.store.read_documents(query).await?.found;
            for document in &page {
                found.push(read(document)?);
            }
            match page.last().filter(|_| page.len() == PAGE) {
                Some(last) => after = Some((last.created_at, last.key.clone())),
                None => break,
            }
        }
        for name in self.shared.registry.systems().into_keys() {
            if !found.iter().any(|system| system.name == name) {
                found.push(SystemStatus::of(name, &Breaker::default()));
            }
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Opens the breaker of a system until somebody [resets](Self::reset_system) it: its steps wait,
    /// nothing probes it, and no attempt is spent. What is under way goes on.
    ///
    /// The workers of this process heed it at once, others with their next sign of life: within a
    /// third of their lease. Doing it again changes nothing and is not noted.
    ///
    /// ```
    /// # use tasker_core::{MemoryStore, Operator, StoreError, Tasker};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasker = Tasker::builder(MemoryStore::new()).build()?;
    /// let ada = Operator::new("Ada", "the bank moves house tonight");
    /// let bank = tasker.trip_system("bank", &ada).await?;
    /// assert_eq!(bank.state.as_str(), "open");
    /// let bank = tasker.reset_system("bank", &Operator::new("Ada", "it has moved")).await?;
    /// assert_eq!(bank.state.as_str(), "closed");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The store failed; whether it took note is unknown, and doing it again is safe.
    pub async fn trip_system(
        &self,
        name: &str,
        operator: &Operator,
    ) -> Result<SystemStatus, StoreError> {
        let Operator { name: by, reason, .. } = operator;
        let trip = |breaker: &mut Breaker, now| breaker.trip(by, reason, now);
        let breaker = self.shared.systems.operate(name, trip).await?;
        self.shared.raised.notify_one();
        Ok(SystemStatus::of(name, &breaker))
    }

    /// Closes the breaker of a system, whoever opened it: its steps go on, few at a time at first.
    ///
    /// Doing it again changes nothing and is not noted.
    ///
    /// # Errors
    /// The store failed; whether it took note is unknown, and doing it again is safe.
    pub async fn reset_system(
        &self,
        name: &str,
        operator: &Operator,
    ) -> Result<SystemStatus, StoreError> {
        let Operator { name: by, reason, .. } = operator;
        let reset = |breaker: &mut Breaker, now| breaker.reset(by, reason, now);
        let breaker = self.shared.systems.operate(name, reset).await?;
        self.shared.raised.notify_one();
        Ok(SystemStatus::of(name, &breaker))
    }

    /// How many calls to systems this process thinks are under way.
    #[cfg(feature = "testing")]
    pub(crate) fn calls_under_way(&self) -> usize {
        self.shared.systems.calls()
    }

    pub(super) async fn explain(&self, task: TaskId) -> Result<Option<Why>, StoreError> {
        let Some(stored) = self.shared.store.load(task).await? else { return Ok(None) };
        let steps = stored.template.steps().iter();
        let mut keys: Vec<_> = steps.filter_map(|step| step.dependent_system.clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut systems = Vec::new();
        if !keys.is_empty() && !stored.state.is_terminal() {
            let query = DocumentQuery::Keys { collection: Collection::System, keys };
            for document in self.shared.store.read_documents(query).await?.found {
                systems.push(read(&document)?);
            }
        }
        Ok(Why::with_systems(&stored, &systems))
    }
}

fn read(document: &Document) -> Result<SystemStatus, StoreError> {
    Ok(SystemStatus::of(&document.key, &breaker_of(document)?))
}
