//! What an operator, or a program that acts for one, does to a task.

mod plan;
mod refused;
mod steps;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use self::plan::Plan;
pub use self::refused::{Illegal, Refused};
use crate::action::{Action, ActionKind};
use crate::escalation::may_concern;
use crate::history::{Aspect, Occurrence, Operation, OrderKey, Transition};
use crate::snapshot::Snapshot;
use crate::store::{Assumption, NewOffer, Route, TaskChange, Then};

use crate::{StepIndex, TaskState};

/// The longest key of an order, in bytes.
const MAX_KEY: usize = 255;

/// Why an operator wants something done, and under what condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Why; kept in the task's history.
    pub reason: String,
    /// Makes a repetition of the same action with the same key do nothing.
    pub key: Option<String>,
    /// The version of the task that the operator looked at; the order is refused if it has moved.
    pub expects: Option<u64>,
}

/// What is decided about an action that is legal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is to be carried out.
    Change(Box<TaskChange>),
    /// It was carried out before, under the same key.
    Repeated,
}

impl Order {
    /// An order with a reason and no more.
    pub fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), key: None, expects: None }
    }
}

impl Decision {
    /// The change, if there is anything to be done.
    pub fn into_change(self) -> Option<TaskChange> {
        match self {
            Self::Change(change) => Some(*change),
            Self::Repeated => None,
        }
    }
}

/// Decides on an operator's action; the task is then as the change leaves it.
///
/// Every action that is accepted adds one row to the task's own log, and takes the task from its
/// owner.
///
/// # Errors
/// See [`Refused`]; the task is as it was.
pub fn operate(
    task: &mut Snapshot,
    action: &Action,
    order: &Order,
    now: Timestamp,
) -> Result<Decision, Refused> {
    check(order)?;
    if let Some(key) = &order.key
        && let Some(known) = task.order(key)
    {
        return match known.digest == action.digest() {
            true => Ok(Decision::Repeated),
            false => Err(Refused::KeyReused { key: key.clone() }),
        };
    }
    if let Some(expected) = order.expects.filter(|expected| *expected != task.version()) {
        let (found, state) = (task.version(), task.state());
        return Err(Refused::Moved { expected, found, state });
    }
    let plan = plan::of(task, action, now)?;
    Ok(Decision::Change(Box::new(carry_out(task, action, order, plan, now))))
}

fn check(order: &Order) -> Result<(), Refused> {
    let fits = |key: &String| {
        !key.is_empty() && key.len() <= MAX_KEY && !key.chars().any(char::is_control)
    };
    if !order.key.as_ref().is_none_or(fits) {
        let message = "the key must have 1 to 255 bytes and no control characters";
        return Err(Refused::Invalid { message: message.to_owned() });
    }
    if order.reason.contains('\0') {
        let message = "the reason must have no NUL character".to_owned();
        return Err(Refused::Invalid { message });
    }
    Ok(())
}

fn carry_out(
    task: &mut Snapshot,
    action: &Action,
    order: &Order,
    plan: Plan,
    now: Timestamp,
) -> TaskChange {
    let assumes = Assumption::Unmoved { version: task.version() };
    let kind = action.kind();
    let (ended_at, wake_at) = (task.ended_at(), task.wake_at());
    let mut before = aspect(task, kind, plan.step);
    before.wake_at = wake_at.filter(|at| task.state() == TaskState::Pending && *at > now);
    let own_row = task.own_row(Occurrence::CompensationBegun);
    let review = may_concern(task);
    let offers = unsettled(task, kind, &plan);

    let rows = plan.rows.into_iter().map(|(step, what)| {
        let seq = task.step(step).next_seq();
        Transition { step: Some(step), seq, attempt: 0, ran_for: Duration::ZERO, what }
    });
    let steps: Vec<_> = rows.collect();
    let mut stale = false;
    steps.iter().for_each(|row| task.note(row, now, &mut stale));
    task.catch_up(stale);
    task.set_state(plan.state);
    let mut after = aspect(task, kind, plan.step);
    after.context = plan.context;
    let digest = || action.digest();
    let key = order.key.clone().map(|key| OrderKey { key, digest: digest() });
    let reason = order.reason.clone();
    let operation =
        Operation { action: kind, step: plan.step, reason, key, ended_at, before, after };
    let own = Transition { what: Occurrence::Operated(Box::new(operation)), ..own_row };
    task.apply(&own, now);

    let state = plan.state;
    let then = match state {
        TaskState::Pending | TaskState::InProgress | TaskState::Compensating => {
            let route = Route::of(task.template());
            Then::Queue { state, wake_in: plan.wake_in, route }
        }
        TaskState::Paused => Then::Hold { state },
        TaskState::Complete
        | TaskState::Error
        | TaskState::Cancelled
        | TaskState::Compensated
        | TaskState::ResolvedManually => Then::End { state },
    };
    let rows = [vec![own], steps].concat();
    // What ends is said outright: an owner who was quicker may have put on record what is no more.
    let degraded = task.mark_degraded().or(state.is_terminal().then_some(task.degraded()));
    TaskChange { task: task.id(), assumes, rows, offers, then, degraded, review }
}

/// Offers of the steps whose end would have changed the decision, beside those that get a row.
///
/// An owner records the ends of steps without moving the version. An offer is for a row to come, so
/// the change conflicts if one of them has ended since; it is withdrawn by the change itself, which
/// takes the task from its owner. Only two actions look at more than they write: to run again from
/// a step, at which steps rest on it and have begun, and whether others failed; to skip one that
/// has not begun, at what that waits for.
fn unsettled(task: &Snapshot, kind: ActionKind, plan: &Plan) -> Vec<NewOffer> {
    if task.state() != TaskState::InProgress {
        return Vec::new();
    }
    let dag = task.template().dag();
    let looked_at = match plan.rows.as_slice() {
        _ if kind == ActionKind::RetryFrom => None,
        [(step, Occurrence::Skipped { begun: false })] => Some(dag.ancestors(*step)),
        _ => return Vec::new(),
    };
    let written: BTreeSet<_> = plan.rows.iter().map(|(step, _)| *step).collect();
    let running = task.ready().iter().copied().filter(|step| !written.contains(step));
    let running =
        running.filter(|step| looked_at.as_ref().is_none_or(|looked_at| looked_at.contains(step)));
    let offer = |step| {
        let (seq, route) = (task.step(step).next_seq(), Route::of(task.template()));
        NewOffer { step, seq, route, needs: Vec::new() }
    };
    running.map(offer).collect()
}

/// The side of a task that an action changes, as it stands.
fn aspect(task: &Snapshot, kind: ActionKind, step: Option<StepIndex>) -> Aspect {
    let mut aspect = Aspect::of(task.state());
    if let Some(index) = step {
        let step = task.step(index);
        aspect.step = Some(step.state());
        aspect.attempts = Some(step.counted());
        aspect.limit = Some(task.retry_limit(index));
        if kind == ActionKind::ResolveStep {
            aspect.result = task.result(index).cloned();
        }
    }
    if kind == ActionKind::EditContext {
        aspect.context = Some(task.context().clone());
    }
    aspect
}
