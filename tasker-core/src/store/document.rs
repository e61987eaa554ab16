//! Documents: what workers and operators share beside tasks.
//!
//! How the systems stand that steps depend on, what needs a person, when a task is to be looked at:
//! each is a small JSON document, written whole, by compare and swap. A store keeps them and looks
//! into none of them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;

use super::Applied;
use crate::Json;

/// What a document is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Collection {
    /// How a system stands that steps depend on; the key is its name.
    System,
    /// Something that needs a person; the key says what, so that it is raised once.
    Escalation,
    /// A task that is to be looked at when its time has come; the key is its id. Or something that is
    /// to be looked at because it has changed; the key begins with the task's id, or is that of the
    /// escalation.
    Alarm,
    /// A sink for escalations that workers have; the key is its name.
    Sink,
}

/// A collection that this version of Tasker does not know.
#[derive(Debug, thiserror::Error)]
#[error("unknown collection `{0}`: it was written by another version of Tasker")]
pub struct UnknownCollection(String);

/// A document as a store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Document {
    /// What it is about.
    pub collection: Collection,
    /// Its name, unique in the collection.
    pub key: String,
    /// Counts its writes, from 1.
    pub version: u64,
    /// Its state, to list documents by.
    pub state: String,
    /// When somebody should look at it, if ever.
    pub due_at: Option<Timestamp>,
    /// What it says.
    pub body: Json,
    /// When it was first written, by the store's clock.
    pub created_at: Timestamp,
    /// When it was last written.
    pub written_at: Timestamp,
}

/// A document to be written, or deleted, if nobody else was quicker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DocumentChange {
    /// What it is about.
    pub collection: Collection,
    /// Its name.
    pub key: String,
    /// The version that was read; `None` if there must be no such document.
    pub expects: Option<u64>,
    /// What it becomes; `None` deletes it.
    pub put: Option<Content>,
}

/// What a document is to say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Content {
    /// Its state.
    pub state: String,
    /// How long from now until somebody should look at it.
    pub due_in: Option<Duration>,
    /// The rest.
    pub body: Json,
}

/// Which documents to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentQuery {
    /// Those with these keys.
    Keys {
        /// Of this collection.
        collection: Collection,
        /// The keys; those that there are not are left out of the answer.
        keys: Vec<String>,
    },
    /// Those that somebody should look at now, of every collection, the longest due first.
    Due {
        /// At most this many.
        limit: usize,
    },
    /// A page of a collection, newest first.
    List {
        /// Of this collection.
        collection: Collection,
        /// Only those in this state.
        state: Option<String>,
        /// Only those after this one: `created_at` and `key` of the last of the page before.
        after: Option<(Timestamp, String)>,
        /// At most this many; 0 means 100, and no page is longer than 1,000.
        limit: usize,
    },
}

/// Documents, and when they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documents {
    /// The store's clock.
    pub now: Timestamp,
    /// Those that were found.
    pub found: Vec<Document>,
}

/// What became of changes of documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentsWritten {
    /// The store's clock.
    pub now: Timestamp,
    /// One for each change, in their order.
    pub applied: Vec<Applied>,
}

impl Collection {
    /// All collections.
    pub const ALL: [Self; 4] = [Self::System, Self::Escalation, Self::Alarm, Self::Sink];

    /// The name in databases.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Escalation => "escalation",
            Self::Alarm => "alarm",
            Self::Sink => "sink",
        }
    }
}

impl DocumentQuery {
    /// The most documents that the answer may have.
    pub fn page_size(&self) -> usize {
        match self {
            Self::Keys { keys, .. } => keys.len(),
            Self::Due { limit } => *limit,
            Self::List { limit: 0, .. } => 100,
            Self::List { limit, .. } => (*limit).min(1000),
        }
    }
}

impl FromStr for Collection {
    type Err = UnknownCollection;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|collection| collection.as_str() == name);
        known.ok_or_else(|| UnknownCollection(name.to_owned()))
    }
}

impl fmt::Display for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
