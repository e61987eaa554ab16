//! Steps that an owner offers to other workers.

use std::time::Duration;

use super::Handles;
use super::fixture::{
    FIRST, SECOND, THIRD, apply, by, cancelled, change, claim, claim_of, commit, completed, end,
    helpers, living, load, lose, offer, offering, operated, operator, owned, queue, refuse,
    request, settlement, template,
};
use crate::store::{
    Applied, Assumption, Committed, NewOffer, News, OfferedStep, Route, StateStore, StoredTask,
    TaskChange, Then,
};
use crate::{StepIndex, TaskState, TaskTemplate, WorkerId};

async fn help(
    store: &dyn StateStore,
    helper: WorkerId,
    template: &TaskTemplate,
) -> Vec<OfferedStep> {
    claim(store, request(helper, &[helpers(template)], 0, 10)).await.offers
}

/// A task of which one step is offered.
async fn shared(
    store: &dyn StateStore,
    owner: WorkerId,
    template: &std::sync::Arc<TaskTemplate>,
    step: StepIndex,
) -> StoredTask {
    let task = owned(store, owner, template).await;
    let offers = vec![offer(template, step, &[])];
    apply(store, &by(owner), offering(&task, offers)).await;
    task
}

pub(super) async fn an_offer_is_claimed_once(handles: Handles) {
    let template = template("once");
    let owner = living(&*handles.here).await;
    for _ in 0..20 {
        let task = owned(&*handles.here, owner, &template).await;
        let offers = vec![offer(&template, FIRST, &[]), offer(&template, THIRD, &[])];
        apply(&*handles.here, &by(owner), offering(&task, offers)).await;
    }
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..6 {
        let store = if number % 2 == 0 { handles.here.clone() } else { handles.there.clone() };
        let helper = living(&*store).await;
        let template = template.clone();
        callers.spawn(async move {
            let mut got = Vec::new();
            loop {
                let asked = request(helper, &[helpers(&template)], 0, 3);
                let offers = claim(&*store, asked).await.offers;
                if offers.is_empty() {
                    return got;
                }
                got.extend(offers.into_iter().map(|offer| (offer.task.id, offer.step)));
            }
        });
    }
    let mut got: Vec<_> = callers.join_all().await.concat();
    assert_eq!(got.len(), 40);
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 40, "no offer was handed out twice");
}

pub(super) async fn an_offer_brings_what_its_step_needs(handles: Handles) {
    let (store, template) = (&*handles.here, template("needs"));
    let (owner, helper) = (living(store).await, living(store).await);
    let task = owned(store, owner, &template).await;
    let rows = vec![completed(FIRST, 1), completed(THIRD, 1), completed(SECOND, 1), cancelled(1)];
    let offers = vec![NewOffer { seq: 2, ..offer(&template, SECOND, &[FIRST]) }];
    let shares = TaskChange { offers, ..change(&task, rows, Then::Keep) };
    apply(store, &by(owner), shares).await;
    let offers = help(&*handles.there, helper, &template).await;
    let [OfferedStep { task: part, step, seq }] = &offers[..] else { panic!("{offers:?}") };
    assert_eq!((*step, *seq, part.id), (SECOND, 2, task.id));
    assert_eq!(part.context, task.context);
    assert_eq!(part.template.fingerprint(), template.fingerprint());
    let mut steps: Vec<_> = part.rows.iter().map(|row| row.transition.step).collect();
    steps.sort();
    let expected = [None, Some(FIRST), Some(SECOND)];
    assert_eq!(steps, expected, "the task's rows, the needed ones, its own, and no other");
}

pub(super) async fn an_offer_goes_to_those_who_serve_its_route(handles: Handles) {
    let (store, template) = (&*handles.here, template("route"));
    let (owner, helper) = (living(store).await, living(store).await);
    shared(store, owner, &template, FIRST).await;
    let others = [Route::of(&template), Route::to_handler(&template, "other")];
    let work = claim(store, request(helper, &others, 10, 10)).await;
    assert!(work.offers.is_empty() && work.tasks.is_empty(), "{work:?}");
    assert_eq!(help(store, helper, &template).await.len(), 1);
}

pub(super) async fn a_settled_offer_tells_the_owner(handles: Handles) {
    let template = template("settled");
    let (owner, helper) = (living(&*handles.here).await, living(&*handles.there).await);
    let task = shared(&*handles.here, owner, &template, FIRST).await;
    help(&*handles.there, helper, &template).await;
    apply(&*handles.there, &by(helper), settlement(task.id, FIRST)).await;
    let stored = load(&*handles.here, task.id).await;
    assert_eq!((stored.version, stored.owner), (task.version, Some(owner)), "it stays its owner's");
    assert_eq!(stored.rows.len(), 1);
    assert_eq!(stored.rows[0].author, by(helper));
    let news = claim_of(&*handles.here, owner, &template, 0).await.news;
    let [News::Settled { task: id, row }] = &news[..] else { panic!("{news:?}") };
    assert_eq!((*id, row), (task.id, &stored.rows[0]), "the row that was added");
    assert!(claim_of(&*handles.here, owner, &template, 0).await.news.is_empty(), "told once");
    assert!(claim_of(&*handles.there, helper, &template, 0).await.news.is_empty());
    // The owner goes on from there.
    let goes_on = change(&task, vec![completed(SECOND, 1)], end(TaskState::Complete));
    apply(&*handles.here, &by(owner), goes_on).await;
}

pub(super) async fn an_offer_is_settled_once(handles: Handles) {
    let (store, template) = (&*handles.here, template("consumed"));
    let (owner, helper) = (living(store).await, living(store).await);
    let task = shared(store, owner, &template, FIRST).await;
    help(store, helper, &template).await;
    let twice = vec![settlement(task.id, FIRST), settlement(task.id, FIRST)];
    let applied = commit(store, &by(helper), twice).await;
    assert_eq!(applied, [Applied::Yes, Applied::Conflict]);
    refuse(store, &by(helper), settlement(task.id, FIRST)).await;
    let other_row = TaskChange { rows: vec![completed(FIRST, 2)], ..settlement(task.id, FIRST) };
    refuse(store, &by(helper), other_row).await;
    assert!(help(store, helper, &template).await.is_empty(), "it is offered no more");
    assert_eq!(load(store, task.id).await.rows.len(), 1);
}

pub(super) async fn only_the_holder_settles(handles: Handles) {
    let (store, template) = (&*handles.here, template("holder"));
    let (owner, helper) = (living(store).await, living(store).await);
    let other = living(&*handles.there).await;
    let task = shared(store, owner, &template, FIRST).await;
    refuse(store, &by(helper), settlement(task.id, FIRST)).await;
    refuse(store, &operator(), settlement(task.id, FIRST)).await;
    assert_eq!(help(store, helper, &template).await.len(), 1);
    for author in [by(other), by(owner), operator()] {
        refuse(&*handles.there, &author, settlement(task.id, FIRST)).await;
    }
    let owns = Assumption::Owned { version: task.version };
    refuse(store, &by(helper), TaskChange { assumes: owns, ..settlement(task.id, FIRST) }).await;
    apply(store, &by(helper), settlement(task.id, FIRST)).await;
}

pub(super) async fn an_offer_is_of_one_row(handles: Handles) {
    let (store, template) = (&*handles.here, template("row"));
    let (owner, helper) = (living(store).await, living(store).await);
    let task = shared(store, owner, &template, FIRST).await;
    help(store, helper, &template).await;
    for (step, seq) in [(FIRST, 2), (FIRST, 0), (SECOND, 1), (THIRD, 1)] {
        let assumes = Assumption::OfferHeld { step, seq };
        let wrong = TaskChange { assumes, ..settlement(task.id, FIRST) };
        refuse(store, &by(helper), wrong).await;
    }
    apply(store, &by(helper), settlement(task.id, FIRST)).await;
    // The next attempt is another offer.
    let offers = vec![NewOffer { seq: 2, ..offer(&template, FIRST, &[]) }];
    apply(store, &by(owner), offering(&task, offers)).await;
    let again = help(store, helper, &template).await;
    assert_eq!(again[0].seq, 2);
    assert_eq!(again[0].task.rows.len(), 1, "the row of the attempt before");
    let assumes = Assumption::OfferHeld { step: FIRST, seq: 2 };
    let rows = vec![completed(FIRST, 2)];
    let settles = TaskChange { assumes, rows, ..settlement(task.id, FIRST) };
    apply(store, &by(helper), settles).await;
}

pub(super) async fn an_offer_that_stands_keeps_its_holder(handles: Handles) {
    let (store, template) = (&*handles.here, template("stands"));
    let (owner, helper) = (living(store).await, living(store).await);
    let task = shared(store, owner, &template, FIRST).await;
    assert_eq!(help(store, helper, &template).await.len(), 1);
    // The owner did not hear that its first offer was stored.
    let offers = vec![offer(&template, FIRST, &[])];
    apply(&*handles.there, &by(owner), offering(&task, offers)).await;
    let other = living(store).await;
    assert_eq!(help(&*handles.there, other, &template).await.len(), 0, "somebody runs it");
    apply(store, &by(helper), settlement(task.id, FIRST)).await;
}

pub(super) async fn a_row_that_exists_is_not_offered(handles: Handles) {
    let (store, template) = (&*handles.here, template("past"));
    let (owner, helper) = (living(store).await, living(store).await);
    let task = shared(store, owner, &template, FIRST).await;
    help(store, helper, &template).await;
    apply(store, &by(helper), settlement(task.id, FIRST)).await;
    // The owner has not heard of the settlement.
    let offers = vec![offer(&template, SECOND, &[]), offer(&template, FIRST, &[])];
    refuse(&*handles.there, &by(owner), offering(&task, offers)).await;
    assert_eq!(help(store, helper, &template).await.len(), 0, "it was left out whole");
}

pub(super) async fn a_change_may_assume_that_a_row_does_not_exist(handles: Handles) {
    let (store, template) = (&*handles.here, template("assumed"));
    let (owner, helper) = (living(store).await, living(store).await);
    let task = owned(store, owner, &template).await;
    let orders = |offers| {
        let queued = queue(&template, Duration::ZERO);
        TaskChange { offers, ..operated(&task, vec![cancelled(1)], queued) }
    };
    apply(store, &by(owner), change(&task, vec![completed(FIRST, 1)], Then::Keep)).await;
    let settled_since = orders(vec![offer(&template, FIRST, &[])]);
    refuse(&*handles.there, &operator(), settled_since).await;
    assert_eq!(load(store, task.id).await.version, task.version, "it was left out whole");
    apply(&*handles.there, &operator(), orders(vec![offer(&template, THIRD, &[])])).await;
    assert!(help(store, helper, &template).await.is_empty(), "and nothing was offered");
}

pub(super) async fn a_released_task_withdraws_its_offers(handles: Handles) {
    let (store, template) = (&*handles.here, template("released"));
    let (owner, helper) = (living(store).await, living(store).await);
    let task = owned(store, owner, &template).await;
    let offers = vec![offer(&template, FIRST, &[]), offer(&template, THIRD, &[])];
    apply(store, &by(owner), offering(&task, offers)).await;
    let asked = request(helper, &[helpers(&template)], 0, 1);
    let taken = claim(store, asked).await.offers.remove(0).step;
    apply(store, &by(owner), change(&task, Vec::new(), queue(&template, Duration::ZERO))).await;
    assert!(help(store, helper, &template).await.is_empty(), "open offers are withdrawn");
    refuse(store, &by(helper), settlement(task.id, taken)).await;
    // The next owner may offer the same steps anew.
    let task = claim_of(store, owner, &template, 1).await.tasks.remove(0);
    let offers = vec![offer(&template, FIRST, &[])];
    apply(store, &by(owner), offering(&task, offers)).await;
    assert_eq!(help(store, helper, &template).await.len(), 1);
    apply(store, &by(helper), settlement(task.id, FIRST)).await;
}

pub(super) async fn an_ended_task_withdraws_its_offers(handles: Handles) {
    let (store, template) = (&*handles.here, template("over"));
    let (owner, helper) = (living(store).await, living(store).await);
    for by_operator in [true, false] {
        let task = owned(store, owner, &template).await;
        let offers = vec![offer(&template, FIRST, &[]), offer(&template, THIRD, &[])];
        apply(store, &by(owner), offering(&task, offers)).await;
        let asked = request(helper, &[helpers(&template)], 0, 1);
        let taken = claim(store, asked).await.offers.remove(0).step;
        let ends = end(TaskState::Cancelled);
        if by_operator {
            let cancels = operated(&task, vec![cancelled(1)], ends);
            apply(&*handles.there, &operator(), cancels).await;
        } else {
            apply(store, &by(owner), change(&task, vec![cancelled(1)], ends)).await;
        }
        refuse(store, &by(helper), settlement(task.id, taken)).await;
        assert!(help(store, helper, &template).await.is_empty());
        assert_eq!(load(store, task.id).await.rows.len(), 1);
    }
}

pub(super) async fn a_helper_that_lost_its_lease_is_refused(handles: Handles) {
    let (store, template) = (&*handles.here, template("helper"));
    let (owner, helper) = (living(store).await, living(store).await);
    let task = shared(store, owner, &template, FIRST).await;
    help(store, helper, &template).await;
    lose(&*handles.there, helper).await;
    let committed = store.commit(&by(helper), vec![settlement(task.id, FIRST)]).await.unwrap();
    assert_eq!(committed, Committed::LeaseLost);
    assert!(load(store, task.id).await.rows.is_empty());
}

pub(super) async fn the_owner_may_settle_what_it_offered(handles: Handles) {
    let (store, template) = (&*handles.here, template("quicker"));
    let (owner, helper) = (living(store).await, living(store).await);
    let task = shared(store, owner, &template, FIRST).await;
    help(store, helper, &template).await;
    apply(store, &by(owner), change(&task, vec![completed(FIRST, 1)], Then::Keep)).await;
    // The row is there: whoever comes second adds none.
    refuse(store, &by(helper), settlement(task.id, FIRST)).await;
    assert_eq!(load(store, task.id).await.rows.len(), 1);
}
