//! What operators do to tasks.

use super::Tasker;
use crate::decide::{self, Decision, Order, Refused};
use crate::history::Author;
use crate::snapshot::Snapshot;
use crate::status::TaskStatus;
use crate::store::{Applied, Committed, StoreError, StoredTask};
use crate::{Action, TaskId};

/// Who acts on a task, and why; both are kept in its history.
///
/// ```
/// use tasker_core::Operator;
///
/// let operator = Operator::new("alice", "the gateway is back").once("ticket 4711").expecting(3);
/// # assert_eq!(operator.key.as_deref(), Some("ticket 4711"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operator {
    /// A name that says who it was.
    pub name: String,
    /// Why.
    pub reason: String,
    /// What tells a repetition of the same order from another one.
    pub key: Option<String>,
    /// The version of the task that the operator looked at.
    pub expects: Option<u64>,
}

impl Operator {
    /// An operator with a reason.
    pub fn new(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { name: name.into(), reason: reason.into(), key: None, expects: None }
    }

    /// Makes a repetition of the same action on the same task with this key do nothing: the answer
    /// of the first may have been lost.
    #[must_use]
    pub fn once(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Refuses the action if the task is not at this [version](TaskStatus::version) any more.
    #[must_use]
    pub fn expecting(mut self, version: u64) -> Self {
        self.expects = Some(version);
        self
    }

    fn order(&self) -> Order {
        let Self { reason, key, expects, .. } = self;
        Order { reason: reason.clone(), key: key.clone(), expects: *expects }
    }
}

/// Why an action on a task was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// There is no such task.
    #[error("there is no task {0}")]
    NotFound(TaskId),
    /// It is not legal as the task stands, perhaps since a moment ago, or what was handed in is
    /// not: the message says what can be done instead.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Others kept moving the task: look at it and try again.
    #[error("the task is being moved by others: look at it and try again")]
    Contended,
    /// The store failed. Whether the action was carried out is unknown: repeat it with the same
    /// [key](Operator::once).
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How often an action is decided anew when others move the task at the same time.
const TRIES: usize = 16;

impl Tasker {
    /// Acts on a task; once this returns, the action is durable and on record.
    ///
    /// It takes the task from the worker that owns it, which learns of it within its poll, mostly
    /// at once: the worker tells the steps that run through their cancellation signal, and nothing
    /// that they still come to is recorded. With a [key](Operator::once) a repetition does nothing
    /// and answers like the first. The [escalations](Tasker::escalations) that the action answers
    /// are settled by the operator, after it and as well as may be.
    ///
    /// ```
    /// # use tasker_core::{
    /// #     MemoryStore, StepContext, StepTemplate, TaskRequest, TaskTemplate, Tasker, Workflow,
    /// #     step_fn,
    /// # };
    /// use tasker_core::{Action, Operator, TaskState};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let template = TaskTemplate::builder("greet").step(StepTemplate::new("hello")).build()?;
    /// # let hello = step_fn(|_: StepContext| async { Ok("Hello!") });
    /// # let workflow = Workflow::new(template).step("hello", hello);
    /// # let tasker = Tasker::builder(MemoryStore::new()).register(workflow).build()?;
    /// let task = tasker.submit(TaskRequest::new("greet", "Ada")?).await?.id;
    /// let alice = Operator::new("alice", "we look into it");
    /// let status = tasker.operate(task, Action::Pause, &alice).await?;
    /// assert_eq!(status.state, TaskState::Paused);
    ///
    /// let refused = tasker.operate(task, Action::Pause, &alice).await.unwrap_err();
    /// let why = "the task is paused, so it cannot be paused: it can be resumed or cancelled";
    /// assert_eq!(refused.to_string(), why);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`OperateError`]; only after [`OperateError::Store`] may it have been carried out.
    pub async fn operate(
        &self,
        task: TaskId,
        action: Action,
        operator: &Operator,
    ) -> Result<TaskStatus, OperateError> {
        if operator.name.contains('\0') {
            let message = "the operator's name must have no NUL character".to_owned();
            return Err(Refused::Invalid { message }.into());
        }
        let author = Author::Operator(operator.name.clone());
        let order = operator.order();
        for _ in 0..TRIES {
            let stored = self.load(task).await?;
            let mut snapshot = Snapshot::replay(&stored);
            let decided = decide::operate(&mut snapshot, &action, &order, stored.now)?;
            let Decision::Change(change) = decided else { return Ok(TaskStatus::of(&stored)) };
            if !snapshot.state().is_terminal() {
                self.shared.set_alarm_ahead(&stored).await?;
            }
            let (rows, escalates) = (change.rows.clone(), change.escalates());
            match self.shared.store.commit(&author, vec![*change]).await? {
                Committed::Changes { now, applied } if applied == [Applied::Yes] => {
                    for row in &rows {
                        self.shared.events.tell_row(task, snapshot.template(), now, row);
                    }
                    if snapshot.state().is_terminal() {
                        self.shared.events.ended(task);
                    }
                    if escalates {
                        self.shared.raised.notify_one();
                    }
                    let moved = self.load(task).await?;
                    self.shared.settle_escalations(&stored, &snapshot, operator).await;
                    self.shared.set_alarm(&moved).await;
                    return Ok(TaskStatus::of(&moved));
                }
                // Somebody else was quicker: what is stored now decides.
                Committed::Changes { .. } | Committed::LeaseLost => {}
            }
        }
        Err(OperateError::Contended)
    }

    /// Stops a task: once this returns, nothing more of it is recorded.
    ///
    /// What steps have done outside is not undone; [`Action::Compensate`] does that.
    ///
    /// # Errors
    /// [`OperateError::Refused`] if it has ended and not failed; see there for the others.
    pub async fn cancel(
        &self,
        task: TaskId,
        operator: &Operator,
    ) -> Result<TaskStatus, OperateError> {
        self.operate(task, Action::Cancel, operator).await
    }

    /// Puts a failed task back to work: failed steps get a new count of attempts, complete steps
    /// do not run again. A compensation that failed goes on; what was compensated runs again.
    ///
    /// # Errors
    /// [`OperateError::Refused`] if it has not failed; see there for the others.
    pub async fn retry(
        &self,
        task: TaskId,
        operator: &Operator,
    ) -> Result<TaskStatus, OperateError> {
        self.operate(task, Action::Retry, operator).await
    }

    async fn load(&self, task: TaskId) -> Result<StoredTask, OperateError> {
        self.shared.store.load(task).await?.ok_or(OperateError::NotFound(task))
    }
}
