//! Which steps are undone when a task has failed for good, and in which order.

use crate::snapshot::{Outcome, Snapshot, Step, Undone};
use crate::{StepTemplate, TaskTemplate};

/// Whether what a step did, or may have done, is to be undone.
///
/// An attempt whose answer was lost may have had its effect, and so may one that failed or whose
/// worker was lost: a step is left alone only if it cannot have begun.
pub(crate) fn takes_part(template: &StepTemplate, step: &Step) -> bool {
    template.compensate_with.is_some()
        && match step.outcome() {
            Outcome::Complete | Outcome::Resolved | Outcome::Failed => true,
            Outcome::Open => step.may_have_begun(),
            Outcome::Skipped => step.is_touched(),
        }
}

/// Whether there is anything to undo.
pub(super) fn is_called_for(task: &Snapshot) -> bool {
    let steps = task.template().steps().iter().zip(task.steps());
    steps.into_iter().any(|(template, step)| takes_part(template, step))
}

/// How many children of each step still keep it, and what it rests on, from being undone: those that
/// are to be undone themselves and were not, given which steps `take_part`, and those that wait for
/// such a step below them. It is the turn of a step that waits for none.
pub(crate) fn waits_below(template: &TaskTemplate, steps: &[Step], take_part: &[bool]) -> Vec<u32> {
    let dag = template.dag();
    let mut waits = vec![0; steps.len()];
    for index in dag.topological_order().iter().rev() {
        let undone = !take_part[index.get()] || steps[index.get()].undone() == Undone::Yes;
        if waits[index.get()] > 0 || !undone {
            dag.parents(*index).iter().for_each(|parent| waits[parent.get()] += 1);
        }
    }
    waits
}
