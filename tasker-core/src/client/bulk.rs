//! Many failed tasks put back to work together.

use jiff::Timestamp;

use super::{OperateError, Operator, Tasker};
use crate::status::TaskStatus;
use crate::store::{StoreError, TaskQuery, TaskSummary};
use crate::{TaskId, TaskState};

/// Which failed tasks to retry together.
#[derive(Clone, Debug, Default)]
pub struct RetryFilter {
    /// Which tasks, and which page of them. Those in `error`, unless the query says `compensated`;
    /// in no other state can a task be retried.
    pub tasks: TaskQuery,
    /// Only those of which this step failed for good.
    pub failed_step: Option<String>,
    /// Only those of which a step failed for good with this code.
    pub error_code: Option<String>,
    /// Only those that were submitted at this time or later.
    pub from: Option<Timestamp>,
    /// Only those that were submitted before this time.
    pub until: Option<Timestamp>,
}

/// A page of tasks that were to be retried.
#[derive(Debug)]
#[non_exhaustive]
pub struct RetriedPage {
    /// The tasks of the page that fit, newest first, and why one was not retried.
    pub outcomes: Vec<(TaskId, Result<(), OperateError>)>,
    /// Where the next page goes on: the `before` of its query. `None` if this was the last one.
    pub next: Option<TaskId>,
}

impl RetriedPage {
    /// How many tasks were retried.
    pub fn retried(&self) -> usize {
        self.outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).count()
    }
}

impl RetryFilter {
    fn was_submitted_then(&self, task: &TaskSummary) -> bool {
        self.from.is_none_or(|from| task.created_at >= from)
            && self.until.is_none_or(|until| task.created_at < until)
    }

    fn asks_how_it_failed(&self) -> bool {
        self.failed_step.is_some() || self.error_code.is_some()
    }

    /// Whether a step failed as it is to have.
    fn failed_so(&self, task: &TaskStatus) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == found)
        };
        task.failed_steps().any(|step| {
            let code = step.failure.as_ref().map(|failure| failure.code.as_str());
            is(&self.failed_step, Some(&step.name)) && is(&self.error_code, code)
        })
    }
}

impl Tasker {
    /// Retries those tasks of a page of a list that fit a filter, each by itself.
    ///
    /// Go on with [`RetriedPage::next`] as the query's `before`; a page may have no task that fits.
    /// With a [key](Operator::once) the whole may be begun anew after a crash: tasks that were
    /// retried under it and have failed again are left alone. A [version](Operator::expecting) makes
    /// no sense here.
    ///
    /// # Errors
    /// The store could not list the tasks or read one of them; those before it may have been
    /// retried. What became of each task that was found is in the page.
    pub async fn retry_all(
        &self,
        filter: &RetryFilter,
        operator: &Operator,
    ) -> Result<RetriedPage, StoreError> {
        let state = match filter.tasks.state {
            None | Some(TaskState::Error) => TaskState::Error,
            Some(TaskState::Compensated) => TaskState::Compensated,
            Some(_) => return Ok(RetriedPage { outcomes: Vec::new(), next: None }),
        };
        let query = TaskQuery { state: Some(state), ..filter.tasks.clone() };
        let size = query.page_size();
        let page = self.shared.store.find(query).await?;
        let next = page.last().filter(|_| page.len() == size).map(|last| last.id);
        let mut outcomes = Vec::new();
        for task in page.iter().filter(|task| filter.was_submitted_then(task)) {
            if filter.asks_how_it_failed() {
                let status = self.status(task.id).await?;
                if !status.is_some_and(|status| filter.failed_so(&status)) {
                    continue;
                }
            }
            let outcome = self.retry(task.id, operator).await;
            outcomes.push((task.id, outcome.map(|_| ())));
        }
        Ok(RetriedPage { outcomes, next })
    }
}
