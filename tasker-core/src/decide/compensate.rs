//! Which steps are undone when a task has failed for good, and in which order.

use crate::snapshot::{Outcome, Snapshot, Step, Undone};
use crate::{StepIndex, StepTemplate, TaskTemplate};

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

/// The steps among those that `take_part` whose turn it is to be undone, done or not: every step
/// that rests on them, directly or through others, was.
pub(crate) fn in_turn(template: &TaskTemplate, steps: &[Step], take_part: &[bool]) -> Vec<bool> {
    let dag = template.dag();
    let mut clear = vec![true; steps.len()];
    for index in dag.topological_order().iter().rev() {
        let undone =
            |step: &StepIndex| !take_part[step.get()] || steps[step.get()].undone() == Undone::Yes;
        let children = dag.children(*index);
        clear[index.get()] = children.iter().all(|child| clear[child.get()] && undone(child));
    }
    clear
}
