//! What the end of an attempt says about the system that its step depends on.

use crate::StepTemplate;
use crate::history::{Failure, FailureClass};

/// What the end of an attempt says about a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered, be it that the card is declined.
    Well,
    /// It counts against it.
    Failed,
    /// Nothing: the handler was at fault, or did not get as far as an answer.
    Silent,
}

/// What a failure of a step says about the system that it depends on.
///
/// With [`system_errors`](StepTemplate::system_errors) exactly those codes count, otherwise what
/// may be retried and what timed out. A panic is the handler's own.
pub fn verdict(step: &StepTemplate, failure: &Failure) -> Verdict {
    let counts = match &step.system_errors {
        Some(codes) => codes.contains(&failure.code),
        None => matches!(failure.class, FailureClass::Retryable | FailureClass::TimedOut),
    };
    match failure.class {
        _ if counts => Verdict::Failed,
        FailureClass::TimedOut | FailureClass::Panicked => Verdict::Silent,
        FailureClass::Retryable | FailureClass::Permanent | FailureClass::Unstorable => {
            Verdict::Well
        }
    }
}
