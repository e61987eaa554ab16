//! What operators do, and what must be true of it.

use tasker_core::decide::{self, Decision, Order, Refused};
use tasker_core::history::{Occurrence, Transition};
use tasker_core::snapshot::Snapshot;
use tasker_core::store::Then;
use tasker_core::{Action, ActionKind, Json, StepIndex, TaskState};

use super::{Owner, World};
use crate::oracle::{Event, View};

/// The states in which an action may be legal, by the guide for operators.
fn may_be_legal(kind: ActionKind, state: TaskState, view: &View) -> bool {
    use TaskState::{
        Cancelled, Compensated, Compensating, Complete, Error, InProgress, Paused, Pending,
    };
    match kind {
        ActionKind::Cancel if view.undoing => false,
        ActionKind::Cancel => matches!(state, Pending | InProgress | Paused | Error),
        ActionKind::Retry => matches!(state, Error | Compensated),
        ActionKind::RetryStep => matches!(state, Error | Paused | Complete),
        ActionKind::RetryFrom if view.undoing => false,
        ActionKind::RetryFrom => {
            matches!(state, Pending | InProgress | Paused | Error | Complete)
        }
        ActionKind::ResolveStep | ActionKind::SkipStep if view.undoing => {
            matches!(state, Error | Compensating)
        }
        ActionKind::ResolveStep | ActionKind::SkipStep => {
            matches!(state, Pending | InProgress | Paused | Error)
        }
        ActionKind::EditContext => matches!(state, Pending | Paused | Error | Compensated),
        ActionKind::Pause => matches!(state, Pending | InProgress),
        ActionKind::Resume => state == Paused,
        ActionKind::SetRetryLimit => {
            !matches!(state, Cancelled | Compensated | TaskState::ResolvedManually)
        }
        ActionKind::Compensate => {
            !view.undoing && view.undoable && matches!(state, Error | Complete | Cancelled)
        }
        ActionKind::Resolve => state == Error,
    }
}

/// Whether an action that may be legal is, whatever the steps are like.
const fn asks_no_step(kind: ActionKind) -> bool {
    !matches!(
        kind,
        ActionKind::RetryStep
            | ActionKind::RetryFrom
            | ActionKind::ResolveStep
            | ActionKind::SkipStep
            | ActionKind::SetRetryLimit
    )
}

fn action(kind: ActionKind, step: usize, number: u16) -> (Action, Event) {
    let name = format!("s{step}");
    let limit = u32::from(number % 4 + 1);
    let result = Json::null();
    match kind {
        ActionKind::Cancel => (Action::Cancel, Event::Cancelled),
        ActionKind::Retry => (Action::Retry, Event::Retried),
        ActionKind::RetryStep => (Action::RetryStep { step: name }, Event::RetriedStep { step }),
        ActionKind::RetryFrom => (Action::RetryFrom { step: name }, Event::RetriedFrom { step }),
        ActionKind::ResolveStep => {
            (Action::ResolveStep { step: name, result }, Event::Resolved { step })
        }
        ActionKind::SkipStep => (Action::SkipStep { step: name }, Event::Skipped { step }),
        ActionKind::EditContext => {
            (Action::EditContext { context: Json::of(&number).unwrap() }, Event::Edited)
        }
        ActionKind::Pause => (Action::Pause, Event::Paused),
        ActionKind::Resume => (Action::Resume, Event::Resumed),
        ActionKind::SetRetryLimit => {
            (Action::SetRetryLimit { step: name, limit }, Event::Limited { step, limit })
        }
        ActionKind::Compensate => (Action::Compensate, Event::UndoingOrdered),
        ActionKind::Resolve => (Action::Resolve, Event::Closed),
    }
}

impl World {
    pub(super) fn operate(&mut self, kind: ActionKind, number: u16) {
        let step = number as usize % self.rules.len();
        let (action, event) = action(kind, step, number);
        let mut task = Snapshot::replay(&self.stored);
        let untouched = task.clone();
        let (view, state, now) = (self.view(), self.state(), self.stored.now);
        let key = Some(format!("order {}", self.stored.rows.len()));
        let order = Order { reason: "because".to_owned(), key, expects: None };

        let moved = Order { expects: Some(self.stored.version + 1), ..order.clone() };
        let refused = decide::operate(&mut task, &action, &moved, now).unwrap_err();
        assert!(matches!(refused, Refused::Moved { .. }), "{refused}");

        let decided = decide::operate(&mut task, &action, &order, now);
        let may = may_be_legal(kind, state, &view);
        assert!(may || decided.is_err(), "{kind} in {state}: {view:?}");
        if let Err(refused) = decided {
            assert!(!may || !asks_no_step(kind), "{kind} in {state}: {refused}, {view:?}");
            return;
        }
        let change = decided.unwrap().into_change().unwrap();
        let own = change.rows.iter().filter(|row| row.step.is_none());
        let own: Vec<&Transition> = own.collect();
        let [Transition { what: Occurrence::Operated(record), .. }] = own[..] else {
            panic!("an action is on record once: {own:?}")
        };
        assert_eq!((record.action, record.before.state), (kind, state));

        let before = self.owner.take().map_or(untouched, |owner| owner.task);
        self.events.push(event);
        let rows: Vec<_> = change.rows.iter().map(|row| self.recorded(row.clone())).collect();
        self.record(&rows);
        self.owner = Some(Owner::of(task));
        self.note_moves(Some(before));
        let (after, record) = (self.view(), record.after.clone());
        self.stored.degraded = change.degraded.unwrap_or(self.stored.degraded);
        assert_eq!(self.stored.degraded, after.degraded);
        match change.then {
            Then::Keep => panic!("an action takes the task from its owner"),
            Then::Queue { state, wake_in, .. } => {
                assert!(matches!(state, TaskState::Pending | TaskState::Compensating));
                assert_eq!(state == TaskState::Compensating, after.undoing);
                self.move_task(state);
                self.queue(wake_in);
            }
            Then::Hold { state } => {
                assert_eq!(state, TaskState::Paused);
                self.move_task(state);
                self.stored.version += 1;
                self.stored.wake_at = None;
            }
            Then::End { state } => self.end_task(state),
        }
        self.owner = None;
        assert_eq!(record.state, self.state());
        if let (Some(state), Some(index)) =
            (record.step, self.stored.template.index_of(&format!("s{step}")))
        {
            assert_eq!(state, Snapshot::replay(&self.stored).step(index).state(), "{kind}");
            assert_eq!(index, StepIndex(step as u32));
        }
        self.repeat(&action, &order);
    }

    /// A repetition does nothing, whatever became of the task, and its key is good for no other.
    fn repeat(&self, action: &Action, order: &Order) {
        let mut task = Snapshot::replay(&self.stored);
        let again = decide::operate(&mut task, action, order, self.stored.now);
        assert_eq!(again, Ok(Decision::Repeated));
        let other = match action {
            Action::Pause => Action::Resume,
            _ => Action::Pause,
        };
        let refused = decide::operate(&mut task, &other, order, self.stored.now).unwrap_err();
        assert!(matches!(refused, Refused::KeyReused { .. }), "{refused}");
    }
}
