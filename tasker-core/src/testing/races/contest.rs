//! The two sides of a race, each of which does what a process of Tasker would.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;

use super::stage::{End, Scene, beat, commit};
use super::verdict::{Verdict, grounds};
use crate::decide::{self, Decision, Order};
use crate::history::Author;
use crate::snapshot::Snapshot;
use crate::store::{Applied, Committed, StateStore};
use crate::{Action, TaskId};

/// Who moves the task when the operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rival {
    /// Its owner: what runs has succeeded.
    Completes,
    /// Its owner: what runs took too long.
    TimesOut,
    /// Somebody who takes its owner over, whose lease has run out.
    IsTakenOver,
    /// Another operator, with the same action in mind.
    OrdersTheSame,
    /// Another operator, with another action in mind.
    OrdersAnother,
    /// The operator itself, who never heard the first answer.
    Repeats,
}

impl Rival {
    pub(super) const ALL: [Self; 6] = [
        Self::Completes,
        Self::TimesOut,
        Self::IsTakenOver,
        Self::OrdersTheSame,
        Self::OrdersAnother,
        Self::Repeats,
    ];

    pub(super) const fn operates(self) -> bool {
        matches!(self, Self::OrdersTheSame | Self::OrdersAnother | Self::Repeats)
    }
}

/// One side of a race.
#[derive(Clone, Debug)]
pub(super) enum Side {
    Operator { who: &'static str, action: Action, key: &'static str },
    Owner { succeeds: bool },
    TakeOver,
}

impl Side {
    /// What an operator's order says beside the action.
    pub(super) fn order(key: &str) -> Order {
        Order { key: Some(key.to_owned()), ..Order::because("a race") }
    }
}

/// Does what one side wants of every task, all at once, and says what came of each.
///
/// All that can be is decided before the start, so that the two commits meet.
pub(super) async fn compete(
    store: &Arc<dyn StateStore>,
    scene: &Scene,
    side: &Side,
    start: Option<&Barrier>,
) -> Vec<Verdict> {
    match side {
        Side::Operator { who, action, key } => {
            operate(store, scene, who, action, &Side::order(key), start).await
        }
        Side::Owner { succeeds } => {
            let end = if *succeeds { End::Well } else { End::TimesOut };
            let reports = scene.entrants.iter().map(|entrant| entrant.report(end, scene.now));
            let reports = reports.collect();
            begin(start).await;
            let author = Author::Worker(scene.owner);
            let applied = commit(&**store, &author, reports).await;
            applied.into_iter().map(Verdict::from).collect()
        }
        Side::TakeOver => {
            beat(&**store, scene.owner, Some(Duration::from_millis(1))).await;
            begin(start).await;
            while !store.take_over(100).await.unwrap().contains(&scene.owner) {
                tokio::task::yield_now().await;
            }
            vec![Verdict::Accepted; scene.entrants.len()]
        }
    }
}

async fn begin(start: Option<&Barrier>) {
    if let Some(start) = start {
        start.wait().await;
    }
}

/// Loads, decides and commits until every order is carried out or refused.
async fn operate(
    store: &Arc<dyn StateStore>,
    scene: &Scene,
    who: &str,
    action: &Action,
    order: &Order,
    mut start: Option<&Barrier>,
) -> Vec<Verdict> {
    let author = Author::Operator(who.to_owned());
    let ids: Vec<TaskId> = scene.entrants.iter().map(|entrant| entrant.id).collect();
    let mut verdicts = vec![None; ids.len()];
    while verdicts.contains(&None) {
        let (mut changes, mut entered) = (Vec::new(), Vec::new());
        for (at, id) in ids.iter().enumerate() {
            if verdicts[at].is_some() {
                continue;
            }
            let stored = store.load(*id).await.unwrap().unwrap();
            match decide::operate(&mut Snapshot::replay(&stored), action, order, stored.now) {
                Ok(Decision::Change(change)) => {
                    entered.push(at);
                    changes.push(*change);
                }
                // What is refused at the start might be legal in a moment: the race is on.
                Ok(Decision::Repeated) | Err(_) if start.is_some() => {}
                Ok(Decision::Repeated) => verdicts[at] = Some(Verdict::Repeated),
                Err(refused) => verdicts[at] = Some(Verdict::Refused(grounds(&refused))),
            }
        }
        begin(start.take()).await;
        let applied = match store.commit(&author, changes).await.unwrap() {
            Committed::Changes { applied, .. } => applied,
            Committed::LeaseLost => panic!("an operator has no lease"),
        };
        for at in entered.iter().zip(&applied).filter(|it| *it.1 == Applied::Yes).map(|it| it.0) {
            verdicts[*at] = Some(Verdict::Accepted);
        }
    }
    verdicts.into_iter().flatten().collect()
}
