//! Escalations and alarms: documents that are written together with what they are about.

use std::sync::Arc;
use std::time::Duration;

use super::Handles;
use super::fixture::{
    FIRST, LONG, SECOND, THIRD, apply, beat, by, cancelled, change, claim, commit, completed, end,
    helpers, keyed, living, load, lose, new_task, offer, operated, operator, owned, page, put,
    read, refuse, request, settlement, template, until, write,
};
use crate::history::{AfterFailure, Failure, FailureClass, Occurrence, Transition};
use crate::store::{
    Applied, Assumption, Collection, Committed, Content, Created, Document, DocumentChange,
    DocumentQuery, NewTask, Renewed, StateStore, TaskChange, Then,
};
use crate::{StepIndex, StepTemplate, TaskId, TaskState, TaskTemplate, WorkerId};

/// A step that failed for good.
fn failed(step: StepIndex, seq: u32) -> Transition {
    let (code, message) = ("DECLINED".to_owned(), "no".to_owned());
    let failure = Failure { class: FailureClass::Permanent, code, message };
    let what = Occurrence::Failed { failure, next: AfterFailure::GiveUp };
    Transition { what, ..completed(step, seq) }
}

/// The documents that a change raises, as they are stored.
async fn raised(store: &dyn StateStore, change: &TaskChange) -> Vec<Document> {
    let keys = change.documents().into_iter().map(|raised| raised.key).collect();
    read(store, DocumentQuery::Keys { collection: Collection::Escalation, keys }).await
}

/// Whether what is stored is what a change raises.
fn same(stored: &[Document], change: &TaskChange) -> bool {
    let raised = change.documents();
    let pairs = raised.iter().filter_map(|raised| {
        let stored = stored.iter().find(|stored| stored.key == raised.key)?;
        Some((raised.put.as_ref()?, stored))
    });
    let same = pairs.filter(|(put, stored)| {
        (&put.state, &put.body, put.due_in.is_some())
            == (&stored.state, &stored.body, stored.due_at.is_some())
            && stored.version == 1
    });
    !raised.is_empty() && same.count() == raised.len()
}

pub(super) async fn an_escalation_is_written_with_its_change(handles: Handles) {
    let (store, template) = (&*handles.here, template("escalates"));
    let (owner, helper) = (living(store).await, living(store).await);
    // By its owner alone, among others, with offers, by an operator, and by a helper.
    let task = owned(store, owner, &template).await;
    let fails = change(&task, vec![failed(FIRST, 1)], end(TaskState::Error));
    apply(store, &by(owner), fails.clone()).await;
    assert!(same(&raised(&*handles.there, &fails).await, &fails));

    let (good, bad) = (owned(store, owner, &template).await, owned(store, owner, &template).await);
    let fails = change(&bad, vec![failed(FIRST, 1), failed(THIRD, 1)], Then::Keep);
    let both = vec![change(&good, vec![completed(FIRST, 1)], Then::Keep), fails.clone()];
    assert_eq!(commit(store, &by(owner), both).await, [Applied::Yes; 2]);
    assert!(same(&raised(&*handles.there, &fails).await, &fails));

    let offers = vec![offer(&template, THIRD, &[])];
    let fails = TaskChange { offers, ..change(&good, vec![failed(SECOND, 1)], Then::Keep) };
    apply(store, &by(owner), fails.clone()).await;
    assert!(same(&raised(&*handles.there, &fails).await, &fails));

    let helped = claim(store, request(helper, &[helpers(&template)], 0, 1)).await.offers;
    assert_eq!(helped.len(), 1);
    let fails = TaskChange { rows: vec![failed(THIRD, 1)], ..settlement(good.id, THIRD) };
    apply(&*handles.there, &by(helper), fails.clone()).await;
    assert!(same(&raised(store, &fails).await, &fails));

    let fails = operated(&bad, vec![failed(SECOND, 1)], end(TaskState::Error));
    apply(&*handles.there, &operator(), fails.clone()).await;
    assert!(same(&raised(store, &fails).await, &fails));
    assert_eq!(page(store, Collection::Escalation, None, None, 0).await.len(), 6, "and no other");
}

pub(super) async fn a_notice_is_written_with_its_change(handles: Handles) {
    let (store, template) = (&*handles.here, template("noticed"));
    let (owner, helper) = (living(store).await, living(store).await);
    let (task, other) =
        (owned(store, owner, &template).await, owned(store, owner, &template).await);
    let noticed = |change| TaskChange { review: true, ..change };
    // Alone, among others and with an escalation, without a row, by a helper, and by an operator.
    let alone = noticed(change(&task, vec![completed(FIRST, 1)], Then::Keep));
    apply(store, &by(owner), alone).await;
    let fails = noticed(change(&task, vec![failed(SECOND, 1)], Then::Keep));
    let plain = change(&other, vec![completed(FIRST, 1)], Then::Keep);
    assert_eq!(commit(store, &by(owner), vec![plain, fails]).await, [Applied::Yes; 2]);
    let offers = vec![offer(&template, THIRD, &[])];
    apply(store, &by(owner), TaskChange { offers, ..change(&task, Vec::new(), Then::Keep) }).await;
    claim(store, request(helper, &[helpers(&template)], 0, 1)).await;
    apply(&*handles.there, &by(helper), noticed(settlement(task.id, THIRD))).await;
    apply(store, &by(owner), noticed(change(&task, Vec::new(), end(TaskState::Complete)))).await;
    let cancels = noticed(operated(&other, vec![cancelled(1)], end(TaskState::Cancelled)));
    apply(&*handles.there, &operator(), cancels.clone()).await;
    refuse(store, &operator(), cancels).await;

    let mut found = page(&*handles.there, Collection::Alarm, None, None, 0).await;
    found.sort_by(|one, other| one.key.cmp(&other.key));
    let keys: Vec<_> = found.iter().map(|document| document.key.clone()).collect();
    let mut expected: Vec<_> =
        ["0/1", "1/1", "2/1"].iter().map(|row| format!("{}/{row}", task.id)).collect();
    expected.extend([format!("{}/{}", task.id, task.version), format!("{}/-/1", other.id)]);
    expected.sort();
    assert_eq!(keys, expected);
    assert!(
        found.iter().all(|it| it.version == 1 && it.due_at.is_some()),
        "due at once: {found:?}"
    );
    assert_eq!(page(store, Collection::Escalation, None, None, 0).await.len(), 1);
}

pub(super) async fn a_conflict_raises_nothing(handles: Handles) {
    let (store, template) = (&*handles.here, template("refused"));
    let (worker, dead) = (living(store).await, living(store).await);
    let (good, bad) =
        (owned(store, worker, &template).await, owned(store, worker, &template).await);
    let fails = change(&bad, vec![failed(FIRST, 1)], end(TaskState::Error));
    let stale = TaskChange { assumes: Assumption::Owned { version: bad.version + 1 }, ..fails };
    let ok = change(&good, vec![completed(FIRST, 1)], Then::Keep);
    for changes in [vec![stale.clone()], vec![ok, stale]] {
        let applied = commit(store, &by(worker), changes).await;
        assert_eq!(applied.last(), Some(&Applied::Conflict));
    }
    // A row that exists.
    refuse(store, &by(worker), change(&good, vec![failed(FIRST, 1)], Then::Keep)).await;
    let lost = owned(store, dead, &template).await;
    lose(&*handles.there, dead).await;
    let late = change(&lost, vec![failed(FIRST, 1)], Then::Keep);
    assert_eq!(store.commit(&by(dead), vec![late]).await.unwrap(), Committed::LeaseLost);
    assert!(page(store, Collection::Escalation, None, None, 0).await.is_empty());
}

pub(super) async fn an_escalation_that_stands_stays_as_it_is(handles: Handles) {
    let (store, template) = (&*handles.here, template("stands"));
    let worker = living(store).await;
    for by_owner in [true, false] {
        let task = owned(store, worker, &template).await;
        let rows = vec![failed(FIRST, 1)];
        let (author, fails) = match by_owner {
            true => (by(worker), change(&task, rows, end(TaskState::Error))),
            false => (operator(), operated(&task, rows, end(TaskState::Error))),
        };
        let key = fails.documents()[0].key.clone();
        let seen_to = put(Collection::Escalation, &key, None, "acknowledged");
        assert_eq!(write(&*handles.there, vec![seen_to]).await, [Applied::Yes]);
        let before = raised(store, &fails).await;
        apply(store, &author, fails.clone()).await;
        assert_eq!(raised(store, &fails).await, before, "that is no conflict");
    }
}

/// A template whose tasks have an alarm.
fn limited(within: Duration) -> Arc<TaskTemplate> {
    let step = StepTemplate::new("slow").expected_within(within);
    Arc::new(TaskTemplate::builder("limited").deadline(2 * within).step(step).build().unwrap())
}

async fn alarm(store: &dyn StateStore, task: TaskId) -> Option<Document> {
    let (collection, keys) = (Collection::Alarm, vec![task.to_string()]);
    read(store, DocumentQuery::Keys { collection, keys }).await.pop()
}

pub(super) async fn an_alarm_is_written_with_its_task(handles: Handles) {
    let (store, watched) = (&*handles.here, limited(LONG));
    let worker = living(store).await;
    for (delay, claimant) in
        [(Duration::ZERO, None), (Duration::ZERO, Some(worker)), (LONG, None), (LONG, Some(worker))]
    {
        let task = NewTask { delay, ..new_task(&watched) };
        let other = new_task(&template("patient"));
        let ids = (task.id, other.id);
        let expected: Content = task.alarm().and_then(|alarm| alarm.put).unwrap();
        let created = store.create(vec![other, task], claimant).await.unwrap();
        assert!(created.iter().all(|it| matches!(it, Created::New { .. })), "{created:?}");
        let set = alarm(&*handles.there, ids.0).await.unwrap();
        assert_eq!((set.version, &set.state, &set.body), (1, &expected.state, &expected.body));
        let created_at = load(store, ids.0).await.created_at;
        let due_at = created_at.checked_add(delay + LONG).unwrap();
        assert_eq!(set.due_at, Some(due_at), "counted from when the task may begin");
        assert_eq!(alarm(store, ids.1).await, None, "a task without limits has none");
    }
}

pub(super) async fn a_repeated_submission_has_no_alarm(handles: Handles) {
    let (store, watched) = (&*handles.here, limited(LONG));
    let (first, second) = (keyed(&watched, "key"), keyed(&watched, "key"));
    let (first_id, second_id) = (first.id, second.id);
    let third = keyed(&watched, "key");
    let third_id = third.id;
    let created = store.create(vec![first, second], None).await.unwrap();
    assert!(matches!(created[..], [Created::New { .. }, Created::Existing { .. }]));
    let created = handles.there.create(vec![third], None).await.unwrap();
    assert!(matches!(created[..], [Created::Existing { .. }]));
    assert!(alarm(store, first_id).await.is_some());
    assert_eq!((alarm(store, second_id).await, alarm(store, third_id).await), (None, None));
}

async fn told(store: &dyn StateStore, worker: WorkerId) -> (u64, Option<Duration>) {
    match store.renew(beat(worker, Some(LONG))).await.unwrap() {
        Renewed::Until { systems, next_due, .. } => (systems, next_due),
        Renewed::LeaseLost => panic!("its lease is alive"),
    }
}

pub(super) async fn a_sign_of_life_tells_of_documents(handles: Handles) {
    let (here, there) = (&*handles.here, &*handles.there);
    let worker = living(here).await;
    assert_eq!(told(here, worker).await, (0, None));
    let due = |key: &str, due_in| {
        let change = put(Collection::Alarm, key, None, "set");
        let content = change.put.map(|content| Content { due_in, ..content });
        DocumentChange { put: content, ..change }
    };
    write(there, vec![put(Collection::System, "bank", None, "up")]).await;
    write(there, vec![put(Collection::System, "post", None, "up")]).await;
    write(there, vec![due("never", None)]).await;
    assert_eq!(told(here, worker).await, (2, None), "two of systems, and none that is ever due");
    write(there, vec![put(Collection::System, "bank", Some(1), "down")]).await;
    assert_eq!(told(here, worker).await.0, 3, "another number: one was written");
    write(there, vec![due("late", Some(3 * LONG)), due("soon", Some(LONG))]).await;
    let (systems, next) = told(here, worker).await;
    assert_eq!(systems, 3, "alarms are no systems");
    assert!(next.is_some_and(|next| next <= LONG && next > LONG / 2), "the first: {next:?}");
    write(there, vec![due("now", Some(Duration::ZERO))]).await;
    until("it is due", async || (told(here, worker).await.1 == Some(Duration::ZERO)).then_some(()))
        .await;
    let retired = here.renew(beat(worker, None)).await.unwrap();
    let Renewed::Until { systems, next_due, .. } = retired else { panic!("{retired:?}") };
    assert_eq!((systems, next_due), (3, Some(Duration::ZERO)), "whoever retires hears it too");
}
