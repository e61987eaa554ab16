//! People who do whatever comes to their minds, and remember what they were told.

use std::sync::Arc;
use std::time::Duration;

use super::{PROCESSES, Storm, workflows};
use crate::store::TaskQuery;
use crate::testing::compare::dice::Dice;
use crate::{
    Action, ActionKind, EscalateError, EscalationQuery, Json, OperateError, Operator, RetryFilter,
    TaskId, TaskState, Tasker,
};

/// What was ordered; its reason tells it from all others.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) task: TaskId,
    pub(super) kind: ActionKind,
    pub(super) reason: String,
    pub(super) answer: Answer,
}

/// What whoever ordered it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Accepted,
    Refused,
    /// Nothing: the answer was lost.
    Unknown,
}

impl Storm {
    /// What one of the operators does.
    pub(super) async fn operate(self: Arc<Self>, who: usize) {
        let mut dice = self.dice(100 + who);
        let mut count = 0;
        while self.moment(Duration::from_millis(1 + dice.below(30) as u64)).await {
            count += 1;
            let reason = format!("order {count} of operator {who}");
            let operator = Operator::new(format!("operator {who}"), &reason);
            let tasker = self.processes[dice.below(PROCESSES)].tasker();
            let does = async {
                match dice.below(20) {
                    0 => self.retry_all(&tasker, &operator).await,
                    1 => self.turn_breaker(&tasker, &operator, &mut dice).await,
                    2 | 3 => self.see_to_escalations(&tasker, &operator, &mut dice).await,
                    4 => self.look_around(&tasker, &mut dice).await,
                    5 if who == 0 && self.forecast().sweeps => {
                        if let Some(sweep) = &self.ground.sweep {
                            sweep().await.unwrap();
                        }
                    }
                    _ => self.act(&tasker, &operator, &mut dice).await,
                }
            };
            if self.forecast().faults {
                // Its process may die under it.
                let _ = tokio::time::timeout(self.pace.timeout * 2, does).await;
            } else {
                does.await;
            }
        }
    }

    fn note(&self, task: TaskId, kind: ActionKind, reason: &str, told: &Told<'_>) {
        let answer = match told {
            None => Answer::Unknown,
            Some(Ok(())) => Answer::Accepted,
            Some(Err(OperateError::Refused(_) | OperateError::Contended)) => Answer::Refused,
            Some(Err(OperateError::Store(_))) => Answer::Unknown,
            Some(Err(OperateError::NotFound(_))) if self.forecast().sweeps => Answer::Refused,
            Some(Err(error)) => panic!("seed {}: {kind} of {task}: {error}", self.seed),
        };
        let reason = reason.to_owned();
        self.orders.lock().unwrap().push(Order { task, kind, reason, answer });
    }

    /// Acts on a task; tries something else if that is refused.
    async fn act(&self, tasker: &Tasker, operator: &Operator, dice: &mut Dice) {
        let tasks = self.tasks();
        // Of those that were submitted lately more are on their way.
        let lately = tasks.len().saturating_sub(if dice.chance(60) { 8 } else { tasks.len() });
        let Some(task) = dice.pick(&tasks[lately..]) else { return };
        for attempt in 1..=4 {
            let mut operator = operator.clone();
            operator.reason = format!("{}, attempt {attempt}", operator.reason);
            self.try_to_act(tasker, task, &operator, dice).await;
            let orders = self.orders.lock().unwrap();
            let last = orders.iter().rfind(|order| order.reason == operator.reason);
            if last.is_none_or(|order| order.answer != Answer::Refused) {
                return;
            }
        }
    }

    async fn try_to_act(
        &self,
        tasker: &Tasker,
        task: TaskId,
        operator: &Operator,
        dice: &mut Dice,
    ) {
        let Ok(Some(status)) = tasker.status(task).await else { return };
        let steps: Vec<_> = status.steps.iter().map(|step| step.name.as_str()).collect();
        let step = dice.pick(&steps).unwrap_or_default().to_owned();
        let input: workflows::Input = status.context.to().unwrap();
        let action = any_action(dice, step, input);
        let kind = action.kind();
        // What nobody is told of may have happened.
        let mut operator = operator.clone();
        match dice.below(10) {
            0..=2 => operator = operator.expecting(status.version),
            3 if status.version > 0 => {
                let operator = operator.expecting(status.version - 1);
                let stale = tasker.operate(task, action, &operator).await;
                assert!(stale.is_err(), "seed {}: it has moved: {stale:?}", self.seed);
                return self.note(task, kind, &operator.reason, &Some(stale.as_ref().map(|_| ())));
            }
            _ => {}
        }
        if dice.chance(30) {
            let operator = operator.once(dice.below(1_000_000).to_string());
            self.act_twice(tasker, task, action, &operator).await;
            return;
        }
        self.note(task, kind, &operator.reason, &None);
        let told = tasker.operate(task, action, &operator).await;
        self.forget(task, &operator.reason);
        self.note(task, kind, &operator.reason, &Some(told.as_ref().map(|_| ())));
    }

    /// The same order under the same key, by two at once.
    async fn act_twice(&self, tasker: &Tasker, task: TaskId, action: Action, by: &Operator) {
        let kind = action.kind();
        self.note(task, kind, &by.reason, &None);
        let order = || tasker.operate(task, action.clone(), by);
        let (one, other) = tokio::join!(order(), order());
        let told = match (&one, &other) {
            (Ok(_), _) | (_, Ok(_)) => Some(Ok(())),
            (Err(OperateError::Store(_)), _) | (_, Err(OperateError::Store(_))) => None,
            (Err(error), Err(_)) => Some(Err(error)),
        };
        self.forget(task, &by.reason);
        self.note(task, kind, &by.reason, &told);
    }

    /// The answer has come after all.
    fn forget(&self, task: TaskId, reason: &str) {
        let mut orders = self.orders.lock().unwrap();
        orders.retain(|order| order.task != task || order.reason != reason);
    }

    async fn retry_all(&self, tasker: &Tasker, operator: &Operator) {
        let state = Some(TaskState::Error);
        let filter = RetryFilter {
            tasks: TaskQuery { state, ..TaskQuery::default() },
            ..RetryFilter::default()
        };
        let tasks = self.tasks();
        for task in &tasks {
            self.note(*task, ActionKind::Retry, &operator.reason, &None);
        }
        let Ok(page) = tasker.retry_all(&filter, operator).await else { return };
        for task in &tasks {
            self.forget(*task, &operator.reason);
        }
        for (task, told) in &page.outcomes {
            self.note(*task, ActionKind::Retry, &operator.reason, &Some(told.as_ref().map(|_| ())));
        }
    }

    async fn turn_breaker(&self, tasker: &Tasker, operator: &Operator, dice: &mut Dice) {
        // The store may be away.
        let _ = match dice.chance(30) {
            true => tasker.trip_system(workflows::BANK, operator).await,
            false => tasker.reset_system(workflows::BANK, operator).await,
        };
    }

    async fn see_to_escalations(&self, tasker: &Tasker, operator: &Operator, dice: &mut Dice) {
        let Ok(page) = tasker.escalations(EscalationQuery::default()).await else { return };
        let keys: Vec<_> = page.escalations.iter().map(|it| it.key.as_str()).collect();
        let Some(key) = dice.pick(&keys) else { return };
        let seen = match dice.chance(60) {
            true => tasker.acknowledge(key, operator).await,
            false => tasker.resolve_escalation(key, operator).await,
        };
        match seen {
            Ok(_) | Err(EscalateError::Resolved { .. } | EscalateError::Store(_)) => {}
            Err(EscalateError::NotFound(_)) if self.forecast().sweeps => {}
            Err(error) => panic!("seed {}: {error}", self.seed),
        }
    }

    /// Whoever only looks sees something that makes sense.
    async fn look_around(&self, tasker: &Tasker, dice: &mut Dice) {
        let Some(task) = dice.pick(&self.tasks()) else { return };
        if let Ok(Some(stored)) = self.store().load(task).await {
            let why = crate::Why::of(&stored);
            assert!(why.is_some() || stored.state.is_terminal(), "seed {}: {stored:?}", self.seed);
            let _ = why.map(|why| why.to_string());
        }
        // The store may be away.
        let _ = tasker.why(task).await;
        let _ = tasker.history(task).await;
        let _ = tasker.systems().await;
        let _ = tasker.stranded(Default::default()).await;
    }
}

type Told<'a> = Option<Result<(), &'a OperateError>>;

fn any_action(dice: &mut Dice, step: String, input: workflows::Input) -> Action {
    match dice.pick(&ActionKind::ALL).unwrap_or(ActionKind::Retry) {
        // Else little would be left of the storm.
        ActionKind::Cancel if dice.chance(70) => Action::Retry,
        ActionKind::Cancel => Action::Cancel,
        ActionKind::Retry => Action::Retry,
        ActionKind::RetryStep => Action::RetryStep { step },
        ActionKind::RetryFrom => Action::RetryFrom { step },
        ActionKind::ResolveStep => Action::ResolveStep { step, result: Json::null() },
        ActionKind::SkipStep => Action::SkipStep { step },
        ActionKind::EditContext => {
            let edited = dice.below(60);
            let context = Json::of(&workflows::Input { edited, ..input }).unwrap();
            Action::EditContext { context }
        }
        ActionKind::Pause => Action::Pause,
        ActionKind::Resume => Action::Resume,
        ActionKind::SetRetryLimit => {
            Action::SetRetryLimit { step, limit: 1 + dice.below(4) as u32 }
        }
        ActionKind::Compensate => Action::Compensate,
        ActionKind::Resolve if dice.chance(70) => Action::Retry,
        ActionKind::Resolve => Action::Resolve,
    }
}
