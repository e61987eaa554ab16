//! What can go wrong inside a transaction, and what callers hear of it.
//!
//! A database's own messages quote statements, so none of them leaves this crate: callers get the
//! result code and what it means.

use tasker_core::history::UnreadableRow;
use tasker_core::store::{StoreError, UnknownCollection};
use tasker_core::{TaskId, TemplateError, UnknownPriority, UnknownState};

/// Why a transaction failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the database failed")]
    Sql(#[from] sqlx::Error),
    #[error("what is stored cannot be read: {0}")]
    Unreadable(String),
}

/// A failure that SQLite reported, without its message.
#[derive(Debug, thiserror::Error)]
#[error("SQLite reported {meaning} (result code {code})")]
struct SqliteFailure {
    code: i32,
    meaning: &'static str,
}

const BUSY: i32 = 5;
const LOCKED: i32 = 6;

impl Fault {
    /// Whether another connection has the lock that was asked for.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self.code().map(primary), Some(BUSY | LOCKED))
    }

    /// Whether one operation can be to blame, so that the others are worth another try.
    pub(crate) fn is_of_one_operation(&self) -> bool {
        match self {
            Self::Unreadable(_) => true,
            Self::Sql(_) => match self.code() {
                // Constraint, mismatch, too big, range, schema, plain error, out of memory.
                Some(code) => matches!(primary(code), 19 | 20 | 18 | 25 | 17 | 1 | 7),
                None => matches!(
                    self,
                    Self::Sql(
                        sqlx::Error::Encode(_)
                            | sqlx::Error::Decode(_)
                            | sqlx::Error::ColumnDecode { .. }
                            | sqlx::Error::Protocol(_)
                    )
                ),
            },
        }
    }

    /// Whether it is what is stored of one task that cannot be read, while the database is well.
    fn is_unreadable(&self) -> bool {
        match self {
            Self::Unreadable(_) => true,
            Self::Sql(error) => {
                matches!(error, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. })
            }
        }
    }

    /// SQLite's extended result code, if it is SQLite that failed.
    pub(crate) fn code(&self) -> Option<i32> {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => error.code()?.parse().ok(),
            Self::Sql(_) | Self::Unreadable(_) => None,
        }
    }

    /// What callers hear.
    pub(crate) fn to_store_error(&self) -> StoreError {
        if let Some(code) = self.code() {
            let (meaning, damaged) = meaning(primary(code));
            let reason = meaning.to_owned();
            let source = Some(SqliteFailure { code, meaning }.into());
            return if damaged {
                StoreError::Damaged { reason, source }
            } else {
                StoreError::Unavailable { reason, source }
            };
        }
        match self {
            Self::Unreadable(what) => StoreError::Damaged { reason: what.clone(), source: None },
            Self::Sql(
                sqlx::Error::Decode(_)
                | sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::ColumnIndexOutOfBounds { .. }
                | sqlx::Error::Encode(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::RowNotFound,
            ) => StoreError::Damaged {
                reason: "a stored row does not have the expected shape".to_owned(),
                source: None,
            },
            Self::Sql(sqlx::Error::PoolTimedOut) => {
                unavailable("all connections for reading are busy")
            }
            Self::Sql(_) => unavailable("the connection to the file was lost"),
        }
    }
}

/// What was read of a task; `None`, and a report of it, if that is damaged or of a later version.
pub(crate) fn unless_unreadable<T>(
    task: TaskId,
    read: Result<T, Fault>,
) -> Result<Option<T>, Fault> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(fault) if fault.is_unreadable() => {
            let reason = fault.to_store_error();
            tracing::error!(%task, %reason, "a task cannot be read; the others go on without it");
            Ok(None)
        }
        Err(fault) => Err(fault),
    }
}

/// The store cannot answer now.
pub(crate) fn unavailable(reason: &str) -> StoreError {
    StoreError::Unavailable { reason: reason.to_owned(), source: None }
}

fn primary(code: i32) -> i32 {
    code & 0xff
}

/// What a primary result code means, and whether it calls for a person.
fn meaning(code: i32) -> (&'static str, bool) {
    match code {
        BUSY | LOCKED => ("another process holding its lock for too long", false),
        3 => ("a lack of permission", false),
        7 => ("a lack of memory", false),
        8 => ("a file that cannot be written", false),
        9 => ("an interrupted statement", false),
        10 => ("a disk that cannot be read or written", false),
        13 => ("a full disk", false),
        14 => ("a file that cannot be opened", false),
        11 => ("a damaged file", true),
        18 => ("a value that is too large", true),
        19 => ("a row that the schema refuses", true),
        26 => ("a file that is no database", true),
        _ => ("a statement that failed", true),
    }
}

impl From<UnreadableRow> for Fault {
    fn from(error: UnreadableRow) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<UnknownState> for Fault {
    fn from(error: UnknownState) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<UnknownCollection> for Fault {
    fn from(error: UnknownCollection) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<UnknownPriority> for Fault {
    fn from(error: UnknownPriority) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<TemplateError> for Fault {
    fn from(error: TemplateError) -> Self {
        Self::Unreadable(format!("a stored template: {error}"))
    }
}

impl From<serde_json::Error> for Fault {
    fn from(_: serde_json::Error) -> Self {
        Self::Unreadable("a stored JSON document".to_owned())
    }
}
