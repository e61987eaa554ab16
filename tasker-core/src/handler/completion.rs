//! Steps whose success their handlers record themselves.
//!
//! For stores that let a handler write into the database of the tasks: what the handler does there
//! and the row that says so become durable together, or neither does.

use jiff::Timestamp;

use super::StepOutput;
use crate::Json;
use crate::decide::Begun;
use crate::history::{Author, Recorded, Transition};
use crate::store::{Applied, Committed, StoreError, TaskChange};

/// What a handler ends with.
#[derive(Clone, Debug)]
pub(crate) enum Output {
    /// A result that the worker is to record.
    Result(Json),
    /// The handler has recorded it.
    Recorded(Box<Recorded>),
    /// The store did not let the handler record it.
    Refused,
    /// Whether it is recorded is not known.
    Unknown,
}

/// The success of an attempt, for a handler that records it itself; made by
/// [`StepContext::completion`](crate::StepContext::completion).
///
/// The handler writes [`change`](Self::change) in [`author`](Self::author)'s name as
/// [`StateStore::commit`](crate::StateStore::commit) would, in the same transaction in which it does
/// its work: it checks what the change assumes and the author's lease, and holds both until the
/// transaction ends. If either is false it rolls back. Then it says what became of it, by one of
/// [`recorded`](Self::recorded), [`refused`](Self::refused) and [`unknown`](Self::unknown), and
/// returns that. So the effects of the transaction happen exactly once: a row exists once, and a
/// worker that lost the task is refused. An attempt whose future is dropped, because it timed out
/// or is not wanted any more, needs no more than that its transaction is rolled back; if it was
/// committed at that very moment, its row is there first and counts.
///
/// ```
/// use tasker_core::store::StateStore;
/// use tasker_core::{MemoryStore, StepContext, StepHandler, StepResult, async_trait};
///
/// struct Booked {
///     store: MemoryStore,
/// }
///
/// #[async_trait]
/// impl StepHandler for Booked {
///     async fn process(&self, step: StepContext) -> StepResult {
///         // In a database: begin a transaction, and do the work in it.
///         let output = step.complete("booked")?;
///         let completion = match step.completion(output) {
///             Ok(completion) => completion,
///             // Roll back.
///             Err(output) => return Ok(output),
///         };
///         let change = completion.change().clone();
///         let answer = self.store.commit(completion.author(), vec![change]).await;
///         Ok(completion.committed(answer))
///     }
/// }
/// ```
#[derive(Clone, Debug)]
#[must_use = "the worker has to be told what became of it"]
pub struct Completion {
    author: Author,
    row: Transition,
    change: TaskChange,
}

impl Completion {
    pub(super) fn new(author: Author, begun: Begun, row: Transition) -> Self {
        Self { author, change: begun.record(row.clone()), row }
    }

    /// The worker in whose name it is recorded.
    pub fn author(&self) -> &Author {
        &self.author
    }

    /// What is to be written.
    pub fn change(&self) -> &TaskChange {
        &self.change
    }

    /// It is durable, since this time by the store's clock.
    ///
    /// The worker goes on as if it had recorded the result itself.
    pub fn recorded(self, at: Timestamp) -> StepOutput {
        let Self { author, row: transition, .. } = self;
        StepOutput(Output::Recorded(Box::new(Recorded { at, author, transition })))
    }

    /// What it assumed was false, or the author's lease is gone: nothing was written.
    ///
    /// The worker lets the store judge: if the task was moved, or the step settled otherwise, it
    /// reads the task again and counts a rejected report. If the store knows of no reason, the
    /// attempt failed, retryably, with `NOT_RECORDED`.
    pub fn refused(self) -> StepOutput {
        StepOutput(Output::Refused)
    }

    /// The commit was sent and its answer lost: it may be durable, or become so.
    ///
    /// The worker reads the task again. If the row is there it counts; if not, the attempt is made
    /// again, under the same number and the same idempotency key. Only for an answer that is lost:
    /// a commit that certainly failed is a [`StepError`](crate::StepError) like any other.
    pub fn unknown(self) -> StepOutput {
        StepOutput(Output::Unknown)
    }

    /// The same, from the answer of a commit of this one change.
    pub fn committed(self, answer: Result<Committed, StoreError>) -> StepOutput {
        match answer {
            Ok(Committed::Changes { now, applied }) if applied == [Applied::Yes] => {
                self.recorded(now)
            }
            Ok(Committed::Changes { .. } | Committed::LeaseLost) => self.refused(),
            Err(StoreError::Unavailable { .. } | StoreError::Damaged { .. }) => self.unknown(),
        }
    }
}
