//! Workers: their signs of life, their end, and who takes over.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Handles;
use super::fixture::{
    FIRST, LONG, THIRD, apply, beat, by, cancelled, change, claim, claim_of, completed, expire,
    helpers, ids, living, load, lose, offer, offering, owned, queue, refuse, request, settlement,
    template, until,
};
use crate::WorkerId;
use crate::history::Occurrence;
use crate::store::{Heartbeat, Renewed, RunningStep, StateStore, Then};

const MINUTE: Duration = Duration::from_secs(60);

async fn renew(store: &dyn StateStore, worker: WorkerId, lease: Duration) -> Renewed {
    store.renew(beat(worker, Some(lease))).await.unwrap()
}

pub(super) async fn a_worker_registers_and_renews(handles: Handles) {
    let template = template("alive");
    let worker = WorkerId::new();
    let mut last = None;
    for _ in 0..3 {
        let renewed = renew(&*handles.here, worker, LONG).await;
        let Renewed::Until { now, .. } = renewed else { panic!("{renewed:?}") };
        assert!(last.is_none_or(|last| last <= now), "the store's clock runs forwards");
        last = Some(now);
    }
    let task = owned(&*handles.here, worker, &template).await;
    renew(&*handles.there, worker, LONG).await;
    let stored = load(&*handles.here, task.id).await;
    assert_eq!((stored.owner, stored.version), (Some(worker), task.version));
}

pub(super) async fn a_late_worker_may_renew(handles: Handles) {
    let template = template("late");
    let worker = living(&*handles.here).await;
    let task = owned(&*handles.here, worker, &template).await;
    expire(&*handles.here, worker).await;
    // Time that nobody used to take it over.
    let read = load(&*handles.here, task.id).await.now;
    let later = read.checked_add(Duration::from_millis(5)).unwrap();
    until("the lease has run out", async || {
        (load(&*handles.here, task.id).await.now > later).then_some(())
    })
    .await;
    assert!(matches!(renew(&*handles.here, worker, LONG).await, Renewed::Until { .. }));
    assert!(handles.there.take_over(10).await.unwrap().is_empty(), "it lives again");
    apply(&*handles.here, &by(worker), change(&task, vec![completed(FIRST, 1)], Then::Keep)).await;
}

pub(super) async fn a_name_that_is_gone_never_comes_back(handles: Handles) {
    let lost = living(&*handles.here).await;
    lose(&*handles.there, lost).await;
    let retired = living(&*handles.here).await;
    let answer = handles.here.renew(beat(retired, None)).await.unwrap();
    assert!(matches!(answer, Renewed::Until { .. }), "a living worker may retire: {answer:?}");
    for _ in 0..2 {
        for store in [&*handles.here, &*handles.there] {
            for worker in [lost, retired] {
                assert_eq!(renew(store, worker, LONG).await, Renewed::LeaseLost);
                let again = store.renew(beat(worker, None)).await.unwrap();
                assert_eq!(again, Renewed::LeaseLost, "nor is it retired again");
            }
        }
    }
    let dead = handles.here.take_over(10).await.unwrap();
    assert!(dead.is_empty(), "who is gone is not taken over again: {dead:?}");
}

pub(super) async fn others_spare_sums_the_living(handles: Handles) {
    let store = &*handles.here;
    let say = async |worker, spare| {
        let says = Heartbeat { spare, ..beat(worker, Some(LONG)) };
        match handles.there.renew(says).await.unwrap() {
            Renewed::Until { others_spare, .. } => others_spare,
            Renewed::LeaseLost => panic!("its lease is alive"),
        }
    };
    let (a, b, c) = (WorkerId::new(), WorkerId::new(), WorkerId::new());
    assert_eq!(say(a, 5).await, 0, "its own slots do not count");
    assert_eq!(say(b, 7).await, 5);
    assert_eq!(say(c, 0).await, 12);
    assert_eq!(say(a, 1).await, 7);
    assert_eq!(say(b, 7).await, 1, "what counts is what each said last");
    store.renew(beat(a, None)).await.unwrap();
    assert_eq!(say(c, 0).await, 7, "a retired worker has no slots");
    lose(store, b).await;
    assert_eq!(say(c, 0).await, 0, "neither has a dead one");
    let huge = WorkerId::new();
    say(huge, u32::MAX).await;
    say(c, u32::MAX).await;
    assert_eq!(say(WorkerId::new(), 0).await, u32::MAX, "a sum that is too large is the largest");
}

pub(super) async fn the_next_expiry_is_anothers(handles: Handles) {
    let store = &*handles.here;
    let told = async |worker, lease| match renew(&*handles.there, worker, lease).await {
        Renewed::Until { next_expiry, .. } => next_expiry,
        Renewed::LeaseLost => panic!("its lease is alive"),
    };
    let (a, b, c) = (WorkerId::new(), WorkerId::new(), WorkerId::new());
    assert_eq!(told(a, LONG).await, None, "its own lease does not count");
    // What it is told lies in the last minute of a lease that began a moment ago.
    let is_about =
        |told: Option<Duration>, lease| told.is_some_and(|it| it <= lease && lease - it < MINUTE);
    assert!(is_about(told(b, 3 * LONG).await, LONG));
    assert!(is_about(told(c, 2 * LONG).await, LONG), "the first of several");
    assert!(is_about(told(a, LONG).await, 2 * LONG));
    assert!(is_about(told(a, 5 * LONG).await, 2 * LONG));
    assert!(is_about(told(b, 3 * LONG).await, 2 * LONG), "what counts is the last renewal");
    expire(store, c).await;
    until("the lease has run out", async || {
        (told(a, 5 * LONG).await == Some(Duration::ZERO)).then_some(())
    })
    .await;
    assert_eq!(told(b, 3 * LONG).await, Some(Duration::ZERO), "as long as nobody takes it over");
    assert_eq!(handles.there.take_over(10).await.unwrap(), [c]);
    assert!(is_about(told(a, 5 * LONG).await, 3 * LONG), "who was taken over is no worker");
    store.renew(beat(b, None)).await.unwrap();
    assert_eq!(told(a, 5 * LONG).await, None, "nor is who has retired");
}

pub(super) async fn running_steps_may_be_told(handles: Handles) {
    let template = template("long");
    let worker = living(&*handles.here).await;
    let task = owned(&*handles.here, worker, &template).await;
    let running =
        vec![RunningStep { task: task.id, step: FIRST, running_for: Duration::from_secs(99) }];
    for running in [running, Vec::new()] {
        let name = "höst 'one'; --".to_owned();
        let says = Heartbeat { name, running, ..beat(worker, Some(LONG)) };
        assert!(matches!(handles.here.renew(says).await.unwrap(), Renewed::Until { .. }));
    }
}

pub(super) async fn a_retired_worker_leaves_its_tasks(handles: Handles) {
    let template = template("retired");
    let (worker, other) = (living(&*handles.here).await, living(&*handles.there).await);
    // A claim whose answer it did not wait for.
    let task = owned(&*handles.here, worker, &template).await;
    handles.here.renew(beat(worker, None)).await.unwrap();
    let work = claim_of(&*handles.there, other, &template, 10).await;
    assert_eq!(ids(&work.tasks), [task.id], "what stands in its name is for others at once");
    assert!(work.tasks[0].version > task.version);
}

pub(super) async fn a_dead_workers_tasks_are_queued_at_once(handles: Handles) {
    let template = template("dead");
    let (worker, other) = (living(&*handles.here).await, living(&*handles.there).await);
    let mut tasks = BTreeSet::new();
    for _ in 0..5 {
        tasks.insert(owned(&*handles.here, worker, &template).await.id);
    }
    let first = *tasks.first().unwrap();
    let before = load(&*handles.here, first).await;
    apply(&*handles.here, &by(worker), change(&before, vec![completed(FIRST, 1)], Then::Keep))
        .await;
    lose(&*handles.there, worker).await;
    let after = load(&*handles.there, first).await;
    assert_eq!((after.version, after.owner), (before.version + 1, None));
    assert!(after.wake_at.is_some_and(|at| at <= after.now), "queued to run at once");
    assert!(!after.state.is_terminal());
    let work = claim_of(&*handles.there, other, &template, 10).await;
    assert_eq!(ids(&work.tasks).into_iter().collect::<BTreeSet<_>>(), tasks);
    let again = work.tasks.iter().find(|task| task.id == first).unwrap();
    assert!(
        again.rows.iter().any(|row| row.transition == completed(FIRST, 1)),
        "what was recorded stays"
    );
}

pub(super) async fn each_loss_is_on_record(handles: Handles) {
    let (store, template) = (&*handles.here, template("record"));
    let mut expected = Vec::new();
    let first = living(store).await;
    let mut task = owned(store, first, &template).await;
    // The log has rows already, in an order of its own.
    apply(store, &by(first), change(&task, vec![cancelled(1), cancelled(2)], Then::Keep)).await;
    for seq in 3..=5 {
        let worker = task.owner.unwrap();
        lose(store, worker).await;
        expected.push((seq, worker));
        let next = living(store).await;
        task = claim_of(store, next, &template, 1).await.tasks.remove(0);
    }
    let lost: Vec<_> = task
        .rows
        .iter()
        .filter_map(|row| match row.transition.what {
            Occurrence::WorkerLost { worker } => {
                assert_eq!((row.transition.step, row.transition.attempt), (None, 0));
                assert!(row.at >= task.created_at);
                Some((row.transition.seq, worker))
            }
            _ => None,
        })
        .collect();
    assert_eq!(lost, expected, "one row for each loss, numbered on in the task's own log");
    // A task that it had let go of is none of its own.
    let worker = task.owner.unwrap();
    apply(store, &by(worker), change(&task, Vec::new(), queue(&template, LONG))).await;
    let before = load(store, task.id).await;
    lose(store, worker).await;
    let after = load(store, task.id).await;
    assert_eq!((after.version, after.rows.len()), (before.version, before.rows.len()));
    assert_eq!(after.wake_at, before.wake_at);
}

pub(super) async fn a_take_over_withdraws_offers(handles: Handles) {
    let (store, template) = (&*handles.here, template("orphan"));
    let (owner, helper) = (living(store).await, living(store).await);
    let task = owned(store, owner, &template).await;
    let offers = vec![offer(&template, FIRST, &[]), offer(&template, THIRD, &[])];
    apply(store, &by(owner), offering(&task, offers)).await;
    let asked = request(helper, &[helpers(&template)], 0, 1);
    let taken = claim(store, asked.clone()).await.offers.remove(0);
    lose(&*handles.there, owner).await;
    refuse(store, &by(helper), settlement(task.id, taken.step)).await;
    assert!(claim(store, asked).await.offers.is_empty(), "the next owner offers anew, or not");
}

pub(super) async fn offers_of_a_dead_helper_come_back(handles: Handles) {
    let (store, template) = (&*handles.here, template("comeback"));
    let (owner, helper) = (living(store).await, living(store).await);
    let other = living(store).await;
    let task = owned(store, owner, &template).await;
    apply(store, &by(owner), offering(&task, vec![offer(&template, FIRST, &[])])).await;
    let asked = |worker| request(worker, &[helpers(&template)], 0, 10);
    assert_eq!(claim(store, asked(helper)).await.offers.len(), 1);
    assert!(claim(store, asked(other)).await.offers.is_empty());
    lose(&*handles.there, helper).await;
    let again = claim(store, asked(other)).await.offers;
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].step, again[0].seq), (FIRST, 1));
    let stored = load(store, task.id).await;
    assert_eq!((stored.owner, stored.version), (Some(owner), task.version), "its owner lives");
    assert!(stored.rows.is_empty(), "a helper's death is no row of the task");
    apply(store, &by(other), settlement(task.id, FIRST)).await;
}

pub(super) async fn at_most_so_many_are_taken_over(handles: Handles) {
    let store = &*handles.here;
    let mut expected = BTreeSet::new();
    for _ in 0..5 {
        let worker = living(store).await;
        expire(store, worker).await;
        expected.insert(worker);
    }
    assert!(store.take_over(0).await.unwrap().is_empty());
    let mut dead = Vec::new();
    until("all five are taken over", async || {
        let some = store.take_over(2).await.unwrap();
        assert!(some.len() <= 2, "{some:?}");
        dead.extend(some);
        (dead.len() >= 5).then_some(())
    })
    .await;
    assert_eq!(dead.into_iter().collect::<BTreeSet<_>>(), expected);
}

pub(super) async fn the_living_are_left_alone(handles: Handles) {
    let template = template("living");
    let (worker, dead) = (living(&*handles.here).await, living(&*handles.here).await);
    let task = owned(&*handles.here, worker, &template).await;
    lose(&*handles.there, dead).await;
    assert!(handles.there.take_over(10).await.unwrap().is_empty());
    let stored = load(&*handles.here, task.id).await;
    assert_eq!((stored.owner, stored.version), (Some(worker), task.version));
}

pub(super) async fn each_worker_is_taken_over_once(handles: Handles) {
    let template = template("contest");
    let mut dead = Vec::new();
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let worker = living(&*handles.here).await;
        tasks.push(owned(&*handles.here, worker, &template).await);
        dead.push(worker);
    }
    for worker in &dead {
        expire(&*handles.here, *worker).await;
    }
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..6 {
        let store = if number % 2 == 0 { handles.here.clone() } else { handles.there.clone() };
        callers.spawn(async move {
            let mut taken = Vec::new();
            // Some may not have run out by the first call.
            for _ in 0..20 {
                taken.extend(store.take_over(3).await.unwrap());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            taken
        });
    }
    let mut taken = callers.join_all().await.concat();
    taken.extend(handles.here.take_over(100).await.unwrap());
    taken.sort();
    dead.sort();
    assert_eq!(taken, dead, "each is taken over by one caller");
    for task in tasks {
        let stored = load(&*handles.here, task.id).await;
        assert_eq!((stored.version, stored.rows.len()), (task.version + 1, 1));
    }
}
