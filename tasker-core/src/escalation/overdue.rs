//! Which tasks and steps take longer than they should, and when to look again.
//!
//! Pure, and nothing is remembered: what has been overdue since the last look is told again, under
//! the same key, so that it is raised once.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Incident;
use crate::snapshot::Snapshot;
use crate::store::{Collection, Content, DocumentChange, StoredTask};
use crate::{Json, StepIndex, StepState, TaskId, TaskState};

/// The body of an alarm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Alarm {
    /// How long after its submission the task was to start.
    pub(crate) delay: Duration,
}

impl Alarm {
    /// What the document of an alarm says that is due after a while, if ever.
    pub(crate) fn content(self, due_in: Option<Duration>) -> Content {
        // A duration always has a JSON form.
        let body = Json::of(&self).unwrap_or_else(|_| Json::null());
        Content { state: "set".to_owned(), due_in, body }
    }

    /// The change that arms the alarm of a task, or puts it away if there is nothing more to see.
    ///
    /// It is deleted, unless the task was to start later: how much later is noted nowhere else, and
    /// who puts the task back to work arms it anew.
    pub(crate) fn armed(
        self,
        task: TaskId,
        expects: Option<u64>,
        next_check: Option<Duration>,
    ) -> DocumentChange {
        let kept = next_check.is_some() || !self.delay.is_zero();
        let put = kept.then(|| self.content(next_check));
        DocumentChange { collection: Collection::Alarm, key: task.to_string(), expects, put }
    }
}

/// What takes too long, and when more of it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overdue {
    /// What is to be raised, each under its key.
    pub(crate) raise: Vec<(String, Incident)>,
    /// How long until the next of it may be due; `None` if nothing more ever will be, unless
    /// somebody moves the task.
    pub(crate) next_check: Option<Duration>,
}

/// What of a task takes too long.
///
/// Times run on while a task is paused. A step's time begins anew when somebody has acted on it;
/// while a task is compensated only its deadline counts, and once it has ended nothing does.
pub(crate) fn overdue(stored: &StoredTask, alarm: Alarm) -> Overdue {
    let mut found = Overdue { raise: Vec::new(), next_check: None };
    if stored.state.is_terminal() {
        return found;
    }
    let (id, now) = (stored.id, stored.now);
    let begins = later(stored.created_at, alarm.delay);
    if let Some(deadline) = stored.template.deadline() {
        let incident = Incident::TaskOverdue { task: id, deadline };
        found.note(later(begins, deadline), now, || (deadline_key(id), incident));
    }
    if stored.state == TaskState::Compensating {
        return found;
    }
    let task = Snapshot::replay(stored);
    for (index, template) in (0u32..).map(StepIndex).zip(stored.template.steps()) {
        let Some(expected_within) = template.expected_within else { continue };
        let since = match task.step(index).state() {
            state if state.is_terminal() => continue,
            // It may become ready this very moment.
            StepState::Blocked if task.has_failed() => continue,
            StepState::Blocked => now,
            _ => ready_since(stored, index).max(begins),
        };
        let incident = Incident::StepOverdue { task: id, step: index, expected_within };
        let key = || (step_key(id, index, times_moved(stored, index)), incident);
        found.note(later(since, expected_within), now, key);
    }
    found
}

impl Overdue {
    fn note(&mut self, at: Timestamp, now: Timestamp, what: impl FnOnce() -> (String, Incident)) {
        if at <= now {
            self.raise.push(what());
        } else {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            self.next_check = Some(self.next_check.map_or(wait, |first| first.min(wait)));
        }
    }
}

pub(super) fn deadline_key(task: TaskId) -> String {
    format!("{task}/deadline")
}

pub(super) fn step_key(task: TaskId, step: StepIndex, time: usize) -> String {
    format!("{task}/{}/overdue/{time}", step.0)
}

/// When the latest of what a step had to wait for was recorded: its parents, and who moved it.
fn ready_since(stored: &StoredTask, index: StepIndex) -> Timestamp {
    let parents = stored.template.dag().parents(index);
    let concerns =
        |step: StepIndex, attempt: u32| parents.contains(&step) || (step == index && attempt == 0);
    let rows = stored.rows.iter().filter(|row| {
        row.transition.step.is_some_and(|step| concerns(step, row.transition.attempt))
    });
    rows.map(|row| row.at).max().unwrap_or(stored.created_at)
}

/// How often somebody has acted on a step: rows of its log that settle no attempt.
pub(super) fn times_moved(stored: &StoredTask, index: StepIndex) -> usize {
    let own = stored.rows.iter().map(|row| &row.transition);
    own.filter(|row| row.step == Some(index) && row.attempt == 0).count()
}

fn later(from: Timestamp, wait: Duration) -> Timestamp {
    from.checked_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
