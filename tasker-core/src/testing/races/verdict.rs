//! What came of a race, in a form in which two of them can be compared.

use super::contest::Side;
use crate::TaskState;
use crate::decide::{self, Decision, Refused};
use crate::history::{Author, Occurrence, Operation};
use crate::snapshot::Snapshot;
use crate::store::{Applied, StoredTask};

/// What one side was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    Repeated,
    Conflict,
    Refused(&'static str),
}

impl From<Applied> for Verdict {
    fn from(applied: Applied) -> Self {
        match applied {
            Applied::Yes => Self::Accepted,
            Applied::Conflict => Self::Conflict,
        }
    }
}

/// On what grounds an order was refused.
pub(super) fn grounds(refused: &Refused) -> &'static str {
    match refused {
        Refused::Illegal(_) => "illegal",
        Refused::Moved { .. } => "moved",
        Refused::KeyReused { .. } => "key reused",
        Refused::UnknownStep { .. } => "unknown step",
        Refused::InvalidContext(_) => "invalid context",
        Refused::Invalid { .. } => "invalid",
    }
}

/// Where a race left a task, and what the sides were told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    alice: Verdict,
    rival: Verdict,
    state: TaskState,
    degraded: bool,
    version: u64,
    owned: bool,
    queued: bool,
    rows: Vec<String>,
    steps: Vec<crate::StepState>,
}

impl Outcome {
    pub(super) fn of(task: &StoredTask, alice: &Verdict, rival: &Verdict) -> Self {
        let by = |author: &Author| match author {
            Author::Worker(_) => "a worker".to_owned(),
            Author::Operator(name) => name.clone(),
        };
        let mut rows: Vec<_> = task
            .rows
            .iter()
            .map(|row| {
                let step = row.transition.step.map(|step| step.0);
                let (seq, attempt) = (row.transition.seq, row.transition.attempt);
                let (kind, by) = (row.transition.what.kind(), by(&row.author));
                format!("{step:?}.{seq} attempt {attempt}: {kind} by {by}")
            })
            .collect();
        rows.sort();
        let snapshot = Snapshot::replay(task);
        Self {
            alice: alice.clone(),
            rival: rival.clone(),
            state: task.state,
            degraded: snapshot.degraded(),
            version: task.version,
            owned: task.owner.is_some(),
            queued: task.wake_at.is_some(),
            rows,
            steps: snapshot.steps().iter().map(|step| step.state()).collect(),
        }
    }

    /// Which sides had their way.
    pub(super) fn way(&self) -> &'static str {
        match (&self.alice, &self.rival) {
            (Verdict::Accepted, Verdict::Accepted) => "both",
            (Verdict::Accepted, _) => "the operator",
            (_, Verdict::Accepted) => "the rival",
            (_, _) => "neither",
        }
    }
}

fn operations(task: &StoredTask) -> impl Iterator<Item = (&Author, &Operation)> {
    task.rows.iter().filter_map(|row| match &row.transition.what {
        Occurrence::Operated(operation) => Some((&row.author, &**operation)),
        _ => None,
    })
}

/// Every action that was accepted is on record once, and none that was refused; each leads from
/// where the one before it may have led to where it legally goes.
pub(super) fn check_record(task: &StoredTask, accepted: usize) {
    let raced = |(by, _): &(&Author, &Operation)| matches!(by, Author::Operator(name) if name == "alice" || name == "bob");
    let recorded = operations(task).filter(raced).count();
    assert_eq!(recorded, accepted, "one record for each accepted action: {:#?}", task.rows);
    for (_, Operation { action, before, after, .. }) in operations(task) {
        let legal = before.state == after.state || before.state.may_become(after.state);
        assert!(legal, "{action} leads from {} to {}", before.state, after.state);
    }
    for row in &task.rows {
        let log = task.rows.iter().filter(|it| it.transition.step == row.transition.step);
        assert!(row.transition.seq as usize <= log.count(), "a log has no gaps: {:#?}", task.rows);
    }
}

/// An accepted order that is repeated under its key does nothing, however the race went on.
pub(super) fn check_repetition(task: &StoredTask, side: &Side) {
    let Side::Operator { action, key, .. } = side else { return };
    let decided = decide::operate(&mut Snapshot::replay(task), action, &Side::order(key), task.now);
    assert_eq!(decided, Ok(Decision::Repeated));
}
