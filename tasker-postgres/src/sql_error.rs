//! What a database's error means for a step.

use tasker_core::StepError;

use crate::fault::{Fault, meaning};

/// The failure of a step that an error of the database comes to.
///
/// Another attempt is made after trouble with the connection or the server, a deadlock, a conflict
/// of transactions, or a lock that could not be had in time. What the database refuses for its
/// content, such as a row that violates a constraint, fails permanently. The code is `SQLSTATE_` and
/// the five characters, such as `SQLSTATE_23505`, or `ROW_NOT_FOUND`, or `SQL_ERROR`. The message
/// names what is wrong and the constraint, and quotes neither the statement nor a value.
///
/// ```
/// use tasker_core::StepError;
/// use tasker_postgres::sql_error;
///
/// let error = sql_error(sqlx::Error::PoolTimedOut);
/// assert!(matches!(error, StepError::Retryable { .. }));
/// let error = sql_error(sqlx::Error::RowNotFound);
/// assert_eq!(error, StepError::permanent("ROW_NOT_FOUND", "the database has no such row"));
/// ```
pub fn sql_error(error: sqlx::Error) -> StepError {
    let constraint = match &error {
        sqlx::Error::Database(error) => error.constraint().map(str::to_owned),
        _ => None,
    };
    if matches!(error, sqlx::Error::RowNotFound) {
        return StepError::permanent("ROW_NOT_FOUND", "the database has no such row");
    }
    let is_content = is_content(&error);
    let fault = Fault::from(error);
    let Some(code) = fault.code() else {
        return if is_content {
            let message = "a value does not have the type that the database has or wants";
            StepError::permanent("SQL_ERROR", message)
        } else {
            StepError::retryable(fault.to_store_error().to_string()).with_code("SQL_ERROR")
        };
    };
    let on = constraint.map(|name| format!(", constraint `{name}`")).unwrap_or_default();
    let message = format!("PostgreSQL reported {} (SQLSTATE {code}{on})", meaning_to_step(&code));
    let state = format!("SQLSTATE_{code}");
    if is_permanent(&code) {
        StepError::permanent(state, message)
    } else {
        StepError::retryable(message).with_code(state)
    }
}

/// Whether a commit that failed so may have happened all the same.
pub(crate) fn is_outcome_unknown(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return true };
    // A server that shuts down or is in trouble may have committed before it said so.
    error.code().is_none_or(|code| {
        code == "40003" || matches!(code.get(..2), None | Some("08" | "53" | "57" | "58" | "XX"))
    })
}

impl Fault {
    /// What a step fails with.
    pub(crate) fn to_step_error(&self) -> StepError {
        match self.code() {
            Some(code) => {
                let message = format!(
                    "the step could not be recorded: PostgreSQL reported {} (SQLSTATE {code})",
                    meaning_to_step(&code)
                );
                StepError::retryable(message).with_code(format!("SQLSTATE_{code}"))
            }
            None => StepError::retryable(self.to_store_error().to_string()).with_code("SQL_ERROR"),
        }
    }
}

/// What an SQLSTATE means to who wrote the handler.
fn meaning_to_step(code: &str) -> &'static str {
    match code {
        "25P02" => "that an earlier statement of the transaction had failed",
        "42601" => "a statement that it does not understand",
        "42P01" => "a table that does not exist",
        "42703" => "a column that does not exist",
        _ if code.starts_with("42") => "a statement that does not fit the database",
        _ if code.starts_with("P0") => "an error that a function of the database raised",
        _ if code.starts_with("23") => "a row that a constraint forbids",
        _ => meaning(code).0,
    }
}

/// Whether another attempt would come to the same.
fn is_permanent(code: &str) -> bool {
    match &code[..2] {
        "08" | "25" | "40" | "53" | "55" | "57" | "58" => false,
        // Roles and passwords are changed while programs run.
        "28" => false,
        _ => true,
    }
}

fn is_content(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::Encode(_)
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::TypeNotFound { .. }
    )
}
