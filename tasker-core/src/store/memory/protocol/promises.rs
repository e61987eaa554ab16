//! What is always true, whatever happens in whatever order.

use super::super::state::State;
use super::system::System;
use super::worker::Attempt;
use crate::history::{Author, Occurrence};
use crate::snapshot::Snapshot;
use crate::store::{Assumption, StoredTask, TaskChange};
use crate::{StepIndex, StepState, TaskState};

type Kept = Result<(), String>;

fn keep(holds: bool, promise: &str) -> Kept {
    if holds { Ok(()) } else { Err(promise.to_owned()) }
}

/// Whoever records an outcome has a lease and holds what it writes to.
pub(super) fn holds(
    store: &State,
    before: &StoredTask,
    author: &Author,
    change: &TaskChange,
) -> Kept {
    let Author::Worker(worker) = author else { return Ok(()) };
    let holder = match change.assumes {
        Assumption::Owned { .. } => before.owner,
        Assumption::OfferHeld { step, .. } => store.holder(before.id, step),
        Assumption::Unmoved { .. } => None,
    };
    let holds = store.has_worker(*worker) && holder == Some(*worker);
    keep(holds, "an outcome is recorded by nobody but who holds the task or the offer")
}

/// An outcome is recorded once.
pub(super) fn rows_are_new(before: &StoredTask, change: &TaskChange) -> Kept {
    let key = |step: Option<StepIndex>, seq: u32| {
        before.rows.iter().any(|row| (row.transition.step, row.transition.seq) == (step, seq))
    };
    let new = !change.rows.iter().any(|row| key(row.step, row.seq));
    keep(new, "an outcome is recorded once")
}

/// Nobody is handed a step that is settled.
pub(super) fn is_open(before: &StoredTask, (step, seq): Attempt) -> Kept {
    let settled = before.rows.iter().map(|row| &row.transition);
    let settled = settled.filter(|row| row.step == Some(step) && row.seq >= seq).count() > 0;
    keep(!settled, "nobody is handed a step that is settled")
}

/// A step starts when the success of all its parents is on record.
pub(super) fn parents_are_recorded(stored: &StoredTask, step: StepIndex) -> Kept {
    let mut parents = stored.template.dag().parents(step).iter();
    let recorded = parents.all(|parent| {
        let mut rows = stored.rows.iter().map(|row| &row.transition);
        rows.any(|row| {
            row.step == Some(*parent) && matches!(row.what, Occurrence::Completed { .. })
        })
    });
    keep(recorded, "no step starts before the success of all its parents is on record")
}

/// What is true of every move, whoever made it.
pub(super) fn are_kept(system: &mut System, before: &StoredTask, by_operator: bool) -> Kept {
    let after = system.stored();
    if before.state != after.state {
        keep(before.state.may_become(after.state), "a task moves as the table of states allows")?;
        keep(!before.state.is_terminal() || by_operator, "only an operator moves an ended task")?;
    }
    keep(before.version <= after.version, "the version never goes back")?;
    if before.rows.len() == after.rows.len() && before.state == after.state {
        return Ok(());
    }
    keep(before.rows.len() <= after.rows.len(), "no row is ever removed")?;
    keep(!before.state.is_terminal() || by_operator, "nothing is added to an ended task")?;
    let (old, new) = (Snapshot::replay(before), Snapshot::replay(&after));
    steps_are_legal(&mut system.became_ready, &old, &new)?;
    let states = || new.steps().iter().map(|step| step.state());
    let ended = match after.state {
        TaskState::Complete => states().all(|state| state == StepState::Complete),
        TaskState::Error => states().any(|state| state == StepState::Error),
        TaskState::Pending
        | TaskState::InProgress
        | TaskState::Paused
        | TaskState::Cancelled
        | TaskState::Compensating
        | TaskState::Compensated
        | TaskState::ResolvedManually => true,
    };
    keep(ended, "a task ends as its steps have ended")
}

fn steps_are_legal(became_ready: &mut u8, old: &Snapshot, new: &Snapshot) -> Kept {
    for (at, (old_step, step)) in (0u32..).zip(old.steps().iter().zip(new.steps())) {
        let (was, is) = (old_step.state(), step.state());
        // In one move it may have been run from start to end.
        let legal = was == is
            || was.may_become(is)
            || (was == StepState::Ready && StepState::InProgress.may_become(is));
        keep(legal, "a step moves as the table of states allows")?;
        if was == StepState::Blocked && is == StepState::Ready {
            keep(*became_ready & (1 << at) == 0, "a step becomes ready once")?;
            *became_ready |= 1 << at;
        }
        let template = new.template().step(StepIndex(at));
        keep(step.counted() <= template.retry.limit, "attempts never exceed the limit")?;
        let parents = new.template().dag().parents(StepIndex(at));
        let above = parents.iter().all(|parent| new.step(*parent).state() == StepState::Complete);
        let begun = matches!(is, StepState::Ready | StepState::Complete | StepState::Error);
        keep(above || !begun, "a step comes after its parents")?;
    }
    Ok(())
}
