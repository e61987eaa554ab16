//! Which sinks there are among the workers of a store: what one of them raises is for all of them.
//!
//! Every worker says so when it starts and a few times a day; a sink of which nobody has said so for
//! a day is forgotten.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Desk;
use crate::Json;
use crate::store::{Collection, Content, Document, DocumentChange, DocumentQuery, StoreError};

/// How often a worker says which sinks it has.
const SAID_EVERY: Duration = Duration::from_secs(6 * 3600);

/// A sink of which nothing was said for so long is gone.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// More sinks than anybody has.
const MOST: usize = 1000;

impl Desk {
    /// Says which sinks this worker has, unless that was said lately, and learns of the others'.
    pub(super) async fn meet_sinks(&mut self) -> Result<(), StoreError> {
        let store = &self.core.shared.store;
        let (collection, state, after) = (Collection::Sink, None, None);
        let query = DocumentQuery::List { collection, state, after, limit: MOST };
        let documents = store.read_documents(query).await?;
        let mut changes = Vec::new();
        for sink in &self.core.shared.sinks {
            let document = documents.found.iter().find(|document| document.key == sink.name());
            if document.is_none_or(|document| since(document, documents.now) >= SAID_EVERY / 2) {
                changes.push(said(sink.name(), document));
            }
        }
        let mut known = Vec::new();
        for document in documents.found {
            let own = self.core.shared.sinks.iter().any(|sink| sink.name() == document.key);
            if own || since(&document, documents.now) < FORGOTTEN_AFTER {
                known.push(document.key);
            } else {
                let Document { collection, key, version, .. } = document;
                changes.push(DocumentChange { collection, key, expects: Some(version), put: None });
            }
        }
        if !changes.is_empty() {
            // Whoever was quicker has said the same.
            store.write_documents(changes).await?;
        }
        self.known = known;
        self.say_at = Instant::now() + SAID_EVERY;
        Ok(())
    }
}

fn since(document: &Document, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(document.written_at)).unwrap_or_default()
}

fn said(sink: &str, document: Option<&Document>) -> DocumentChange {
    let content = Content { state: "known".to_owned(), due_in: None, body: Json::null() };
    DocumentChange {
        collection: Collection::Sink,
        key: sink.to_owned(),
        expects: document.map(|document| document.version),
        put: Some(content),
    }
}
