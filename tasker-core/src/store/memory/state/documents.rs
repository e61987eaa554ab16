//! The documents of the store in memory.

use std::time::Duration;

use jiff::Timestamp;

use super::{State, later};
use crate::store::{
    Applied, Collection, Content, Document, DocumentChange, DocumentQuery, Documents,
    DocumentsWritten,
};

impl State {
    pub(crate) fn write_documents(
        &mut self,
        changes: Vec<DocumentChange>,
        now: Timestamp,
    ) -> DocumentsWritten {
        let applied = changes.into_iter().map(|change| self.write_document(change, now)).collect();
        DocumentsWritten { now, applied }
    }

    pub(super) fn write_document(&mut self, change: DocumentChange, now: Timestamp) -> Applied {
        let key = (change.collection, change.key);
        let before = self.documents.get(&key);
        if before.map(|document| document.version) != change.expects {
            return Applied::Conflict;
        }
        let Some(Content { state, due_in, body }) = change.put else {
            self.documents.remove(&key);
            return Applied::Yes;
        };
        let document = Document {
            collection: key.0,
            key: key.1.clone(),
            version: before.map_or(1, |document| document.version + 1),
            state,
            due_at: due_in.map(|wait| later(now, wait)),
            body,
            created_at: before.map_or(now, |document| document.created_at),
            written_at: now,
        };
        self.documents.insert(key, document);
        Applied::Yes
    }

    pub(crate) fn read_documents(&self, query: &DocumentQuery, now: Timestamp) -> Documents {
        let found = match query {
            DocumentQuery::Keys { collection, keys } => {
                let mut keys: Vec<_> = keys.iter().map(|key| (*collection, key.clone())).collect();
                keys.sort_unstable();
                keys.dedup();
                keys.iter().filter_map(|key| self.documents.get(key).cloned()).collect()
            }
            DocumentQuery::Due { limit } => {
                let due = |document: &&Document| document.due_at.is_some_and(|at| at <= now);
                let mut found: Vec<_> = self.documents.values().filter(due).cloned().collect();
                found.sort_by_key(|document| document.due_at);
                found.truncate(*limit);
                found
            }
            DocumentQuery::List { collection, state, after, .. } => {
                let place = |document: &Document| (document.created_at, document.key.clone());
                let listed = |document: &&Document| {
                    document.collection == *collection
                        && state.as_ref().is_none_or(|state| *state == document.state)
                        && after.as_ref().is_none_or(|after| place(document) < *after)
                };
                let mut found: Vec<_> = self.documents.values().filter(listed).cloned().collect();
                found.sort_by_key(|document| std::cmp::Reverse(place(document)));
                found.truncate(query.page_size());
                found
            }
        };
        Documents { now, found }
    }

    /// The sum of the versions of what is known of the systems.
    pub(super) fn systems(&self) -> u64 {
        let of_system = |document: &&Document| document.collection == Collection::System;
        self.documents.values().filter(of_system).map(|document| document.version).sum()
    }

    /// How long until somebody should look at a document.
    pub(super) fn next_due(&self, now: Timestamp) -> Option<Duration> {
        let first = self.documents.values().filter_map(|document| document.due_at).min()?;
        Some(Duration::try_from(first.duration_since(now)).unwrap_or_default())
    }
}
