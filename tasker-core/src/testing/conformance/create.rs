//! New tasks.

use std::sync::Arc;
use std::time::Duration;

use super::Handles;
use super::fixture::{
    apply, by, change, claim_of, end, keyed, living, load, lose, new_task, owned, queued, template,
};
use crate::store::{Claimed, Created, NewTask, Then};
use crate::{Json, StepTemplate, TaskState, TaskTemplate};

pub(super) async fn answers_in_order(handles: Handles) {
    let template = template("order");
    let taken = keyed(&template, "taken");
    let first = taken.id;
    handles.here.create(vec![taken], None).await.unwrap();
    let tasks = vec![new_task(&template), keyed(&template, "taken"), keyed(&template, "free")];
    let (before, after) = (tasks[0].id, tasks[2].id);
    let created = handles.here.create(tasks, None).await.unwrap();
    let is_new = |created: &Created| matches!(created, Created::New { claimed: None, .. });
    assert_eq!(created.len(), 3, "one answer for each task");
    assert!(is_new(&created[0]) && is_new(&created[2]), "{created:?}");
    assert!(
        matches!(created[1], Created::Existing { id, .. } if id == first),
        "the second is not stored, whatever became of the others: {created:?}"
    );
    for id in [before, after] {
        load(&*handles.here, id).await;
    }
}

pub(super) async fn stores_all_of_a_task(handles: Handles) {
    let template = template("whole");
    let task = new_task(&template);
    let (id, context) = (task.id, task.context.clone());
    let created = handles.here.create(vec![task], None).await.unwrap();
    let Created::New { at, claimed: None } = created[0] else { panic!("{created:?}") };
    let stored = load(&*handles.here, id).await;
    assert_eq!(stored.id, id);
    assert_eq!(stored.context, context);
    assert_eq!(stored.template.fingerprint(), template.fingerprint());
    assert_eq!(stored.state, TaskState::Pending);
    assert_eq!((stored.version, stored.owner), (0, None));
    assert_eq!(stored.created_at, at, "the answer says when, by the store's clock");
    assert_eq!(stored.wake_at, Some(at), "it may be claimed at once");
    assert!(stored.ended_at.is_none() && !stored.degraded && stored.rows.is_empty());
    assert!(stored.now >= at);
}

pub(super) async fn durable_tasks_are_seen_by_everybody(handles: Handles) {
    let id = queued(&*handles.here, &template("seen")).await;
    load(&*handles.there, id).await;
}

pub(super) async fn a_taken_key_names_the_task_that_has_it(handles: Handles) {
    let template = template("keys");
    let first = keyed(&template, "Schlüssel 🔑 '; --");
    let (id, digest) = (first.id, first.input_digest());
    handles.here.create(vec![first], None).await.unwrap();
    let expected = vec![Created::Existing { id, input_digest: digest }];

    let same = keyed(&template, "Schlüssel 🔑 '; --");
    let again = same.id;
    assert_eq!(handles.there.create(vec![same], None).await.unwrap(), expected);
    assert!(handles.here.load(again).await.unwrap().is_none(), "it is not stored");

    let context = Json::parse(r#"{"number":2}"#).unwrap();
    let other = NewTask { context, ..keyed(&template, "Schlüssel 🔑 '; --") };
    assert_ne!(other.input_digest(), digest);
    assert_eq!(handles.here.create(vec![other], None).await.unwrap(), expected);
    assert_eq!(handles.here.find(Default::default()).await.unwrap().len(), 1);
}

pub(super) async fn a_key_counts_per_namespace_and_name(handles: Handles) {
    let build = |namespace: &str, name: &str, version: &str| {
        let template = TaskTemplate::builder(name)
            .namespace(namespace)
            .version(version)
            .step(StepTemplate::new("only"));
        Arc::new(template.build().unwrap())
    };
    let first = keyed(&build("one", "task", "1.0.0"), "key");
    let id = first.id;
    handles.here.create(vec![first], None).await.unwrap();
    for (namespace, name) in [("two", "task"), ("one", "other")] {
        let task = keyed(&build(namespace, name, "1.0.0"), "key");
        let created = handles.here.create(vec![task], None).await.unwrap();
        assert!(matches!(created[0], Created::New { .. }), "{namespace}/{name}: {created:?}");
    }
    let later = keyed(&build("one", "task", "2.0.0"), "key");
    let created = handles.here.create(vec![later], None).await.unwrap();
    let Created::Existing { id: existing, .. } = created[0] else { panic!("{created:?}") };
    assert_eq!(existing, id, "a version is no part of what a key counts for");
}

pub(super) async fn a_key_counts_within_one_call(handles: Handles) {
    let template = template("twice");
    let (first, second) = (keyed(&template, "key"), keyed(&template, "key"));
    let (id, digest, other) = (first.id, first.input_digest(), second.id);
    let created = handles.here.create(vec![first, second], None).await.unwrap();
    assert!(matches!(created[0], Created::New { .. }), "{created:?}");
    assert_eq!(created[1], Created::Existing { id, input_digest: digest });
    assert!(handles.here.load(other).await.unwrap().is_none());
}

pub(super) async fn a_key_outlives_the_end_of_its_task(handles: Handles) {
    let template = template("ended");
    let worker = living(&*handles.here).await;
    let task = keyed(&template, "key");
    let id = task.id;
    handles.here.create(vec![task], Some(worker)).await.unwrap();
    let task = load(&*handles.here, id).await;
    let ends = change(&task, Vec::new(), end(TaskState::Complete));
    apply(&*handles.here, &by(worker), ends).await;
    let created = handles.here.create(vec![keyed(&template, "key")], None).await.unwrap();
    assert!(matches!(created[0], Created::Existing { id: it, .. } if it == id), "{created:?}");
}

pub(super) async fn of_a_hundred_at_once_one_is_stored(handles: Handles) {
    let template = template("race");
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..100 {
        let store = if number % 2 == 0 { handles.here.clone() } else { handles.there.clone() };
        let task = keyed(&template, "key");
        calls.spawn(async move { (task.id, store.create(vec![task], None).await.unwrap()) });
    }
    let mut stored = Vec::new();
    let mut named = Vec::new();
    for (id, created) in calls.join_all().await {
        match created[..] {
            [Created::New { .. }] => stored.push(id),
            [Created::Existing { id, .. }] => named.push(id),
            _ => panic!("{created:?}"),
        }
    }
    assert_eq!(stored.len(), 1, "100 concurrent submissions with one key store one task");
    assert!(named.iter().all(|id| *id == stored[0]), "all others are told which one");
    assert_eq!(handles.here.find(Default::default()).await.unwrap().len(), 1);
}

pub(super) async fn a_claimant_owns_at_once(handles: Handles) {
    let template = template("claimant");
    let worker = living(&*handles.here).await;
    let task = owned(&*handles.here, worker, &template).await;
    assert_eq!(task.owner, Some(worker));
    assert_eq!((task.state, task.version), (TaskState::InProgress, 1));
    assert_eq!(task.wake_at, None, "it is in no queue");
    let other = living(&*handles.there).await;
    let work = claim_of(&*handles.there, other, &template, 10).await;
    assert!(work.tasks.is_empty(), "nobody else gets it");
    // It may be written to like any other task that was claimed.
    apply(&*handles.here, &by(worker), change(&task, Vec::new(), end(TaskState::Complete))).await;
}

pub(super) async fn a_lost_claimant_owns_nothing(handles: Handles) {
    let template = template("gone");
    let worker = living(&*handles.here).await;
    lose(&*handles.there, worker).await;
    let task = new_task(&template);
    let id = task.id;
    let created = handles.here.create(vec![task], Some(worker)).await.unwrap();
    assert!(matches!(created[..], [Created::New { claimed: None, .. }]), "{created:?}");
    assert_eq!(load(&*handles.here, id).await.owner, None);
    let other = living(&*handles.here).await;
    assert_eq!(claim_of(&*handles.here, other, &template, 10).await.tasks.len(), 1);
}

pub(super) async fn a_claimant_does_not_get_another_ones_task(handles: Handles) {
    let template = template("theirs");
    let (first, second) = (living(&*handles.here).await, living(&*handles.there).await);
    let task = keyed(&template, "key");
    let id = task.id;
    handles.here.create(vec![task], Some(first)).await.unwrap();
    let created = handles.there.create(vec![keyed(&template, "key")], Some(second)).await.unwrap();
    assert!(matches!(created[..], [Created::Existing { .. }]), "{created:?}");
    let stored = load(&*handles.here, id).await;
    assert_eq!((stored.owner, stored.version), (Some(first), 1), "it stays as it was");
}

pub(super) async fn a_delayed_task_waits(handles: Handles) {
    let template = template("delayed");
    let worker = living(&*handles.here).await;
    let task = NewTask { delay: Duration::from_secs(3600), ..new_task(&template) };
    let id = task.id;
    let created = handles.here.create(vec![task], Some(worker)).await.unwrap();
    let Created::New { at, claimed } = created[0] else { panic!("{created:?}") };
    assert_eq!(claimed, None, "it may not be claimed yet, not even by its claimant");
    let stored = load(&*handles.here, id).await;
    assert_eq!((stored.state, stored.owner), (TaskState::Pending, None));
    assert_eq!(stored.wake_at, at.checked_add(Duration::from_secs(3600)).ok());
    assert!(claim_of(&*handles.here, worker, &template, 10).await.tasks.is_empty());
}

pub(super) async fn a_delay_may_be_too_long_for_any_clock(handles: Handles) {
    let task = NewTask { delay: Duration::MAX, ..new_task(&template("far")) };
    let id = task.id;
    handles.here.create(vec![task], None).await.unwrap();
    let stored = load(&*handles.there, id).await;
    assert!(stored.wake_at.is_some_and(|at| at > stored.now));
}

pub(super) async fn nothing_is_created_from_nothing(handles: Handles) {
    assert_eq!(handles.here.create(Vec::new(), None).await.unwrap(), []);
    let worker = living(&*handles.here).await;
    assert_eq!(handles.here.create(Vec::new(), Some(worker)).await.unwrap(), []);
    let work = claim_of(&*handles.here, worker, &template("none"), 10).await;
    assert!(work.tasks.is_empty() && work.next_in.is_none(), "{work:?}");
    let then = Then::Keep;
    let task = owned(&*handles.here, worker, &template("one")).await;
    apply(&*handles.here, &by(worker), change(&task, Vec::new(), then)).await;
    let work = super::fixture::request(worker, &[], 10, 10);
    let claimed = handles.here.claim(work).await.unwrap();
    assert!(matches!(claimed, Claimed::Work(work) if work.tasks.is_empty()));
}
