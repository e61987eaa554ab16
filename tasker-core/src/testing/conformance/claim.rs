//! Handing out work.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Handles;
use super::fixture::{
    FIRST, LONG, SECOND, THIRD, apply, beat, by, cancelled, change, claim, claim_of, completed,
    due, end, helpers, ids, living, load, lose, new_task, offer, offering, operated, operator,
    owned, queue, queued, request, template, until,
};
use crate::store::{ClaimRequest, Claimed, NewTask, News, Route, TaskChange, Then};
use crate::{TaskState, WorkerId};

pub(super) async fn two_callers_never_get_the_same(handles: Handles) {
    const TASKS: usize = 200;
    let template = template("rush");
    let tasks: Vec<_> = (0..TASKS).map(|_| new_task(&template)).collect();
    let stored: BTreeSet<_> = tasks.iter().map(|task| task.id).collect();
    handles.here.create(tasks, None).await.unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..8 {
        let store = if number % 2 == 0 { handles.here.clone() } else { handles.there.clone() };
        let worker = living(&*store).await;
        let template = template.clone();
        callers.spawn(async move {
            let mut got = Vec::new();
            loop {
                let work = claim_of(&*store, worker, &template, 7).await;
                if work.tasks.is_empty() {
                    return got;
                }
                got.extend(work.tasks.into_iter().map(|task| task.id));
            }
        });
    }
    let got: Vec<_> = callers.join_all().await.concat();
    assert_eq!(got.len(), TASKS, "no task was handed out twice");
    assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), stored, "and none was left");
}

pub(super) async fn tasks_come_in_the_order_of_their_time(handles: Handles) {
    let template = template("order");
    let worker = living(&*handles.here).await;
    let mut expected = Vec::new();
    for wait in [25u64, 15, 5] {
        let task = NewTask { delay: Duration::from_millis(wait), ..new_task(&template) };
        expected.insert(0, task.id);
        handles.here.create(vec![task], None).await.unwrap();
    }
    // The clock may pass between two calls: what is stored says which order is right.
    due(&*handles.here, &expected).await;
    let mut by_time = Vec::new();
    for id in &expected {
        by_time.push((load(&*handles.here, *id).await.wake_at, *id));
    }
    by_time.sort();
    let expected: Vec<_> = by_time.into_iter().map(|(_, id)| id).collect();
    let first = claim_of(&*handles.here, worker, &template, 1).await;
    assert_eq!(ids(&first.tasks), expected[..1]);
    let rest = claim_of(&*handles.here, worker, &template, 10).await;
    assert_eq!(ids(&rest.tasks), expected[1..]);
}

pub(super) async fn a_flood_on_one_route_leaves_room_for_others(handles: Handles) {
    let worker = living(&*handles.here).await;
    for (flooded, quiet) in [("a", "b"), ("d", "c")] {
        let (flooded, quiet) = (template(flooded), template(quiet));
        for _ in 0..20 {
            queued(&*handles.here, &flooded).await;
        }
        let late = queued(&*handles.here, &quiet).await;
        let routes = [Route::of(&flooded), Route::of(&quiet)];
        let work = claim(&*handles.here, request(worker, &routes, 4, 0)).await;
        assert_eq!(work.tasks.len(), 4);
        assert!(ids(&work.tasks).contains(&late), "each route has a turn before one has two");
    }
}

pub(super) async fn a_busy_route_starves_nobody(handles: Handles) {
    let worker = living(&*handles.here).await;
    for (busy, quiet) in [("a", "b"), ("d", "c")] {
        let (busy, quiet) = (template(busy), template(quiet));
        queued(&*handles.here, &busy).await;
        let waiting = queued(&*handles.here, &quiet).await;
        let routes = [Route::of(&busy), Route::of(&quiet)];
        let mut found = false;
        for _ in 0..5 {
            queued(&*handles.here, &busy).await;
            let work = claim(&*handles.here, request(worker, &routes, 1, 0)).await;
            found |= ids(&work.tasks).contains(&waiting);
        }
        assert!(found, "claims of one task each reach every route");
    }
}

pub(super) async fn nothing_is_handed_out_early(handles: Handles) {
    let template = template("early");
    let worker = living(&*handles.here).await;
    let task = NewTask { delay: Duration::from_millis(40), ..new_task(&template) };
    let id = task.id;
    handles.here.create(vec![task], None).await.unwrap();
    let wake_at = load(&*handles.here, id).await.wake_at.expect("it is queued");
    let now = until("a delayed task may be claimed", async || {
        let work = claim_of(&*handles.here, worker, &template, 1).await;
        (!work.tasks.is_empty()).then_some(work.now)
    })
    .await;
    assert!(now >= wake_at, "claimed at {now}, to be claimed from {wake_at}");
}

pub(super) async fn only_served_routes_are_handed_out(handles: Handles) {
    let (served, other) = (template("served"), template("other"));
    let worker = living(&*handles.here).await;
    let here = queued(&*handles.here, &served).await;
    let there = queued(&*handles.here, &other).await;
    let work = claim(&*handles.here, request(worker, &[Route::of(&served)], 10, 0)).await;
    assert_eq!(ids(&work.tasks), [here]);

    // A task that waits for one handler is for those who have that handler.
    let task = &work.tasks[0];
    let then = Then::Queue {
        state: TaskState::InProgress,
        wake_in: Duration::ZERO,
        route: Route::to_handler(&served, "rare"),
    };
    apply(&*handles.here, &by(worker), change(task, Vec::new(), then)).await;
    let common = [Route::of(&served), Route::to_handler(&served, "common")];
    let work = claim(&*handles.here, request(worker, &common, 10, 0)).await;
    assert!(work.tasks.is_empty() && work.next_in.is_none(), "{work:?}");
    let rare = [Route::to_handler(&served, "rare")];
    let work = claim(&*handles.here, request(worker, &rare, 10, 0)).await;
    assert_eq!(ids(&work.tasks), [here]);
    let work = claim_of(&*handles.here, worker, &other, 10).await;
    assert_eq!(ids(&work.tasks), [there]);
}

pub(super) async fn a_claimed_task_is_the_workers(handles: Handles) {
    let template = template("mine");
    let worker = living(&*handles.here).await;
    let id = queued(&*handles.here, &template).await;
    let before = load(&*handles.here, id).await.version;
    let work = claim_of(&*handles.here, worker, &template, 1).await;
    let task = &work.tasks[0];
    assert_eq!(task.id, id);
    assert_eq!(task.version, before + 1);
    assert_eq!(task.state, TaskState::InProgress);
    assert_eq!((task.owner, task.wake_at), (Some(worker), None));
    let stored = load(&*handles.there, id).await;
    assert_eq!((stored.version, stored.owner), (task.version, Some(worker)));
    assert_eq!((stored.state, stored.wake_at), (TaskState::InProgress, None));
    assert!(work.now >= task.created_at);
}

pub(super) async fn a_claimed_task_brings_its_whole_history(handles: Handles) {
    let template = template("history");
    let worker = living(&*handles.here).await;
    let task = owned(&*handles.here, worker, &template).await;
    let rows = vec![completed(FIRST, 1), completed(THIRD, 1), completed(THIRD, 2), cancelled(1)];
    let release = change(&task, rows.clone(), queue(&template, Duration::ZERO));
    apply(&*handles.here, &by(worker), release).await;
    let other = living(&*handles.there).await;
    let work = claim_of(&*handles.there, other, &template, 1).await;
    let claimed = &work.tasks[0];
    assert_eq!(claimed.context, task.context);
    assert_eq!(claimed.template.fingerprint(), template.fingerprint());
    assert_eq!(claimed.created_at, task.created_at);
    let mut got: Vec<_> = claimed.rows.iter().map(|row| row.transition.clone()).collect();
    let mut rows = rows;
    rows.sort_by_key(|row| (row.step, row.seq));
    got.sort_by_key(|row| (row.step, row.seq));
    assert_eq!(got, rows);
    assert!(claimed.rows.iter().all(|row| row.author == by(worker)));
}

pub(super) async fn capacity_is_respected(handles: Handles) {
    let template = template("capacity");
    let worker = living(&*handles.here).await;
    for _ in 0..5 {
        queued(&*handles.here, &template).await;
    }
    let none = claim_of(&*handles.here, worker, &template, 0).await;
    assert!(none.tasks.is_empty(), "no room, no task");
    for expected in [2, 2, 1, 0] {
        let work = claim_of(&*handles.here, worker, &template, 2).await;
        assert_eq!(work.tasks.len(), expected);
    }
    let task = owned(&*handles.here, worker, &template).await;
    let offers = vec![offer(&template, FIRST, &[]), offer(&template, THIRD, &[])];
    apply(&*handles.here, &by(worker), offering(&task, offers)).await;
    let other = living(&*handles.here).await;
    for (room, expected) in [(0, 0), (1, 1), (5, 1)] {
        let asked = request(other, &[helpers(&template)], 0, room);
        let work = claim(&*handles.here, asked).await;
        assert_eq!(work.offers.len(), expected, "room for {room} offers");
    }
}

pub(super) async fn next_in_tells_when_to_come_again(handles: Handles) {
    let template = template("next");
    let worker = living(&*handles.here).await;
    let work = claim_of(&*handles.here, worker, &template, 1).await;
    assert_eq!(work.next_in, None, "nothing is queued");

    let far = NewTask { delay: LONG, ..new_task(&template) };
    handles.here.create(vec![far], None).await.unwrap();
    let next = claim_of(&*handles.here, worker, &template, 1).await.next_in.expect("one waits");
    assert!(next <= LONG && next > LONG / 2, "{next:?}");

    for _ in 0..3 {
        queued(&*handles.here, &template).await;
    }
    let work = claim_of(&*handles.here, worker, &template, 2).await;
    assert_eq!(work.tasks.len(), 2);
    assert_eq!(work.next_in, Some(Duration::ZERO), "it took all that it asked for; one is left");
    let work = claim_of(&*handles.here, worker, &template, 2).await;
    assert_eq!(work.tasks.len(), 1);
    let next = work.next_in.expect("the distant one still waits");
    assert!(next > LONG / 2, "{next:?}");
    let elsewhere = super::fixture::template("elsewhere");
    let work = claim_of(&*handles.here, worker, &elsewhere, 1).await;
    assert_eq!(work.next_in, None, "only its own routes count");
}

pub(super) async fn a_lost_lease_gets_nothing(handles: Handles) {
    let template = template("lost");
    let id = queued(&*handles.here, &template).await;
    let lost = living(&*handles.here).await;
    lose(&*handles.there, lost).await;
    let retired = living(&*handles.here).await;
    handles.here.renew(beat(retired, None)).await.unwrap();
    for worker in [lost, retired, WorkerId::new()] {
        let asked = request(worker, &[Route::of(&template)], 10, 10);
        let holding = ClaimRequest { holding: Some(Vec::new()), ..asked.clone() };
        for asked in [asked, holding] {
            let claimed = handles.here.claim(asked).await.unwrap();
            assert!(matches!(claimed, Claimed::LeaseLost), "{claimed:?}");
        }
    }
    let stored = load(&*handles.here, id).await;
    assert_eq!((stored.owner, stored.version), (None, 0), "nothing happened");
    assert!(stored.wake_at.is_some());
}

pub(super) async fn news_is_handed_out_once(handles: Handles) {
    let template = template("news");
    let worker = living(&*handles.here).await;
    let task = owned(&*handles.here, worker, &template).await;
    let cancel = operated(&task, vec![cancelled(1)], end(TaskState::Cancelled));
    apply(&*handles.there, &operator(), cancel).await;
    // News comes whatever the worker has room for.
    let work = claim_of(&*handles.here, worker, &template, 0).await;
    assert!(
        matches!(work.news[..], [News::Revoked { task: id }] if id == task.id),
        "{:?}",
        work.news
    );
    let work = claim_of(&*handles.here, worker, &template, 0).await;
    assert!(work.news.is_empty(), "{:?}", work.news);
}

pub(super) async fn what_a_lost_answer_handed_out_is_recovered(handles: Handles) {
    let template = template("recover");
    let worker = living(&*handles.here).await;
    let held = owned(&*handles.here, worker, &template).await;
    let forgotten = owned(&*handles.here, worker, &template).await;
    let theirs = living(&*handles.there).await;
    let theirs = owned(&*handles.there, theirs, &template).await;
    let asked = request(worker, &[Route::of(&template)], 0, 0);
    let work = claim(&*handles.here, asked.clone()).await;
    assert!(work.tasks.is_empty(), "nobody said that an answer was lost");

    let recovering = ClaimRequest { holding: Some(vec![held.id]), ..asked.clone() };
    let work = claim(&*handles.here, recovering.clone()).await;
    assert_eq!(ids(&work.tasks), [forgotten.id], "room or not: it is the worker's already");
    let again = &work.tasks[0];
    assert_eq!((again.version, again.owner), (forgotten.version, Some(worker)), "it did not move");
    assert!(!ids(&work.tasks).contains(&theirs.id));
    let work = claim(&*handles.here, recovering).await;
    assert_eq!(ids(&work.tasks), [forgotten.id], "this answer may be lost as well");

    let all = ClaimRequest { holding: Some(vec![held.id, forgotten.id]), ..asked };
    assert!(claim(&*handles.here, all).await.tasks.is_empty());
    let new = queued(&*handles.here, &template).await;
    let asked = ClaimRequest {
        holding: Some(vec![held.id]),
        ..request(worker, &[Route::of(&template)], 1, 0)
    };
    let got: BTreeSet<_> = ids(&claim(&*handles.here, asked).await.tasks).into_iter().collect();
    assert_eq!(got, BTreeSet::from([forgotten.id, new]), "what is due comes on top");
}

pub(super) async fn offers_of_a_lost_answer_are_recovered(handles: Handles) {
    let template = template("lent");
    let (owner, helper) = (living(&*handles.here).await, living(&*handles.there).await);
    let task = owned(&*handles.here, owner, &template).await;
    let offers = vec![offer(&template, FIRST, &[]), offer(&template, SECOND, &[FIRST])];
    apply(&*handles.here, &by(owner), offering(&task, offers)).await;
    let asked = request(helper, &[helpers(&template)], 0, 1);
    let taken = claim(&*handles.there, asked.clone()).await.offers;
    assert_eq!(taken.len(), 1);
    let again = ClaimRequest { holding: Some(Vec::new()), offers: 0, ..asked.clone() };
    let work = claim(&*handles.there, again).await;
    assert!(work.tasks.is_empty(), "an offer does not make the task the helper's");
    assert_eq!(work.offers.len(), 1, "what it holds is handed out again");
    assert_eq!((work.offers[0].step, work.offers[0].seq), (taken[0].step, taken[0].seq));
    let rest = claim(&*handles.there, asked).await.offers;
    assert_eq!(rest.len(), 1);
    assert_ne!(rest[0].step, taken[0].step, "without a lost answer only what is open comes");
    let change = super::fixture::settlement(task.id, taken[0].step);
    apply(&*handles.there, &by(helper), change).await;
    let nothing: Vec<TaskChange> = Vec::new();
    assert!(super::fixture::commit(&*handles.there, &by(helper), nothing).await.is_empty());
    let after = ClaimRequest { holding: Some(Vec::new()), ..request(helper, &[], 0, 0) };
    let left = claim(&*handles.there, after).await.offers;
    assert_eq!(left.len(), 1, "what was settled is held no longer");
    assert_eq!(left[0].step, rest[0].step);
}

pub(super) async fn a_compensating_task_stays_so(handles: Handles) {
    let (store, template) = (&*handles.here, template("undoes"));
    let (worker, dead) = (living(store).await, living(store).await);
    let task = owned(store, dead, &template).await;
    let (route, wake_in) = (Route::of(&template), Duration::ZERO);
    let queued = |state| Then::Queue { state, wake_in, route: route.clone() };
    let undoes = change(&task, Vec::new(), queued(TaskState::Compensating));
    apply(store, &by(dead), undoes).await;
    let claimed = claim_of(store, dead, &template, 1).await.tasks.remove(0);
    assert_eq!(claimed.state, TaskState::Compensating);
    assert_eq!(load(&*handles.there, task.id).await.state, TaskState::Compensating);
    lose(&*handles.there, dead).await;
    let left = load(store, task.id).await;
    assert_eq!((left.state, left.owner), (TaskState::Compensating, None));
    let claimed = claim_of(&*handles.there, worker, &template, 1).await.tasks.remove(0);
    assert_eq!((claimed.id, claimed.state), (task.id, TaskState::Compensating));
    // All others are in progress.
    for state in TaskState::ALL.into_iter().filter(|state| *state != TaskState::Compensating) {
        let task = owned(store, worker, &template).await;
        apply(store, &by(worker), change(&task, Vec::new(), queued(state))).await;
        let claimed = claim_of(store, worker, &template, 1).await.tasks.remove(0);
        assert_eq!((claimed.id, claimed.state), (task.id, TaskState::InProgress), "was {state}");
        assert_eq!(load(&*handles.there, task.id).await.state, TaskState::InProgress);
    }
}

pub(super) async fn a_queued_task_tells_its_route(handles: Handles) {
    let (store, template) = (&*handles.here, template("routed"));
    let (worker, dead) = (living(store).await, living(store).await);
    let stored = load(store, queued(store, &template).await).await;
    assert_eq!(stored.route, Some(Route::of(&template)), "at first its template's own");
    let claimed = claim_of(store, dead, &template, 1).await.tasks.remove(0);
    assert_eq!((claimed.route, load(store, stored.id).await.route), (None, None));
    let parked = Route::to_system(&template, "bank", "charge");
    let (state, wake_in) = (TaskState::InProgress, Duration::ZERO);
    let waits = Then::Queue { state, wake_in, route: parked.clone() };
    let claimed = load(store, stored.id).await;
    apply(store, &by(dead), change(&claimed, Vec::new(), waits)).await;
    assert_eq!(load(&*handles.there, stored.id).await.route, Some(parked.clone()));
    assert!(claim_of(store, worker, &template, 1).await.tasks.is_empty(), "it waits elsewhere");
    let work = claim(&*handles.there, request(dead, &[parked], 1, 0)).await;
    assert_eq!((work.tasks[0].id, &work.tasks[0].route), (stored.id, &None));
    lose(store, dead).await;
    let left = load(&*handles.there, stored.id).await;
    assert_eq!(left.route, Some(Route::of(&template)), "what is taken over is for everybody");
}
