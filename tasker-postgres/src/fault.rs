//! What can go wrong inside an operation, and what callers hear of it.
//!
//! A database's own messages quote statements and values, so none of them leaves this crate:
//! callers get the SQLSTATE and what it means.

use tasker_core::history::UnreadableRow;
use tasker_core::store::{StoreError, UnknownCollection};
use tasker_core::{TaskId, TemplateError, UnknownPriority, UnknownState};

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the database failed")]
    Sql(#[from] sqlx::Error),
    #[error("what is stored cannot be read: {0}")]
    Unreadable(String),
    #[error("others kept changing what was to be changed")]
    Contended,
    #[error("the database did not answer in time")]
    TooLate,
}

/// A failure that PostgreSQL reported, without its message.
#[derive(Debug, thiserror::Error)]
#[error("PostgreSQL reported {meaning} (SQLSTATE {code})")]
struct PostgresFailure {
    code: String,
    meaning: &'static str,
}

impl Fault {
    /// Whether a row that was to be added exists already.
    pub(crate) fn is_duplicate(&self) -> bool {
        self.code().as_deref() == Some("23505")
    }

    /// Whether one operation of a batch can be to blame, so that the others are worth another try.
    pub(crate) fn is_of_one_operation(&self) -> bool {
        match self {
            Self::Unreadable(_) => true,
            Self::Contended | Self::TooLate => false,
            Self::Sql(sqlx::Error::Encode(_) | sqlx::Error::Decode(_)) => true,
            // A lock that somebody holds for long, such as that of an idempotency key; data exception,
            // constraint, program limit.
            Self::Sql(_) => self
                .code()
                .is_some_and(|code| code == "55P03" || matches!(&code[..2], "22" | "23" | "54")),
        }
    }

    /// Whether the connection is as good as before.
    pub(crate) fn spares_the_connection(&self) -> bool {
        match self {
            Self::Unreadable(_) | Self::Contended => true,
            Self::TooLate => false,
            Self::Sql(sqlx::Error::Encode(_) | sqlx::Error::Decode(_)) => true,
            // The server that answered so may have given up its role to another one.
            Self::Sql(_) => self
                .code()
                .is_some_and(|code| !matches!(&code[..2], "08" | "53" | "57" | "58" | "25")),
        }
    }

    /// Whether it is what is stored of one task that cannot be read, while the database is well.
    fn is_unreadable(&self) -> bool {
        match self {
            Self::Unreadable(_) => true,
            Self::Contended | Self::TooLate => false,
            Self::Sql(error) => {
                matches!(error, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. })
            }
        }
    }

    /// The SQLSTATE, five characters, if it is PostgreSQL that failed.
    pub(crate) fn code(&self) -> Option<String> {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => {
                error.code().map(|code| code.into_owned()).filter(|code| code.len() == 5)
            }
            Self::Sql(_) | Self::Unreadable(_) | Self::Contended | Self::TooLate => None,
        }
    }

    /// What callers hear.
    pub(crate) fn to_store_error(&self) -> StoreError {
        if let Some(code) = self.code() {
            let (meaning, damaged) = meaning(&code);
            let reason = format!("PostgreSQL reported {meaning}");
            let source = Some(PostgresFailure { code, meaning }.into());
            return if damaged {
                StoreError::Damaged { reason, source }
            } else {
                StoreError::Unavailable { reason, source }
            };
        }
        match self {
            Self::Unreadable(what) => StoreError::Damaged { reason: what.clone(), source: None },
            Self::Contended => unavailable("others kept changing the same tasks"),
            Self::TooLate => unavailable("it did not answer in time"),
            Self::Sql(
                sqlx::Error::Decode(_)
                | sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::ColumnIndexOutOfBounds { .. }
                | sqlx::Error::Encode(_)
                | sqlx::Error::RowNotFound,
            ) => StoreError::Damaged {
                reason: "a stored row does not have the expected shape".to_owned(),
                source: None,
            },
            Self::Sql(sqlx::Error::PoolTimedOut) => {
                unavailable("no connection could be had in time")
            }
            Self::Sql(sqlx::Error::PoolClosed) => unavailable("it was closed"),
            Self::Sql(_) => unavailable("the connection to the database was lost"),
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

/// What an SQLSTATE means, and whether it calls for a person.
pub(crate) fn meaning(code: &str) -> (&'static str, bool) {
    match code {
        "25006" => ("a server that only reads, such as a standby", false),
        "28000" => ("a user whom it does not let in from here (see pg_hba.conf)", false),
        "28P01" => ("a user or password that it does not accept", false),
        "3D000" => ("a database that does not exist", false),
        "40P01" => ("a deadlock", false),
        "42501" => ("a lack of permission", false),
        "53100" => ("a full disk", false),
        "53200" => ("a lack of memory", false),
        "53300" => ("too many connections", false),
        "55P03" => ("another session holding its lock for too long", false),
        "57014" => ("a statement that was cancelled", false),
        "57P01" | "57P02" => ("that it is shutting down", false),
        "57P03" => ("that it is starting", false),
        "25P03" => ("a transaction that was idle for too long", false),
        _ => match &code[..2] {
            "08" => ("a broken connection", false),
            "22" => ("a value that it cannot store", true),
            "23" => ("a row that the schema refuses", true),
            "3F" | "42" => ("a schema that is missing or of another version", true),
            "40" => ("a conflict of transactions", false),
            "53" | "57" | "58" => ("trouble of its own", false),
            "54" => ("a value that is too large", true),
            "XX" => ("a damaged database", true),
            _ => ("a statement that failed", true),
        },
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
