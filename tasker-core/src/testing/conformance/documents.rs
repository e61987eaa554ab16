//! Documents: compare and swap, and what is read of them.

use std::sync::Arc;
use std::time::Duration;

use super::Handles;
use super::fixture::{LONG, page, put, read, until, write};
use crate::Json;
use crate::store::{
    Applied, Collection, Content, Document, DocumentChange, DocumentQuery, StateStore,
};

const SYSTEM: Collection = Collection::System;

/// The documents of a collection with some keys.
async fn of(store: &dyn StateStore, collection: Collection, keys: &[&str]) -> Vec<Document> {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    read(store, DocumentQuery::Keys { collection, keys }).await
}

async fn one(store: &dyn StateStore, key: &str) -> Option<Document> {
    of(store, SYSTEM, &[key]).await.pop()
}

fn delete(key: &str, expects: Option<u64>) -> DocumentChange {
    DocumentChange { put: None, ..put(SYSTEM, key, expects, "") }
}

/// A document that is due after a while.
fn due(collection: Collection, key: &str, due_in: Duration) -> DocumentChange {
    let mut change = put(collection, key, None, "set");
    if let Some(content) = &mut change.put {
        content.due_in = Some(due_in);
    }
    change
}

fn keys(found: &[Document]) -> Vec<&str> {
    found.iter().map(|document| document.key.as_str()).collect()
}

pub(super) async fn a_document_is_written_as_it_was_read(handles: Handles) {
    let (here, there) = (&*handles.here, &*handles.there);
    assert_eq!(write(here, vec![put(SYSTEM, "bank", None, "up")]).await, [Applied::Yes]);
    let first = one(there, "bank").await.unwrap();
    assert_eq!((first.version, &*first.state, first.due_at), (1, "up", None));
    for expects in [None, Some(0), Some(2), Some(u64::MAX)] {
        let late = put(SYSTEM, "bank", expects, "down");
        assert_eq!(write(there, vec![late]).await, [Applied::Conflict], "{expects:?}");
    }
    assert_eq!(one(here, "bank").await.as_ref(), Some(&first), "a conflict writes nothing");
    assert_eq!(write(there, vec![put(SYSTEM, "bank", Some(1), "down")]).await, [Applied::Yes]);
    let second = one(here, "bank").await.unwrap();
    assert_eq!((second.version, &*second.state), (2, "down"));
    assert_eq!(second.created_at, first.created_at, "when it was first written");
    assert!(second.written_at >= first.written_at, "when it was last written");
    assert_eq!(write(here, vec![put(SYSTEM, "none", Some(1), "up")]).await, [Applied::Conflict]);
    // Another collection has other keys.
    let alarm = put(Collection::Alarm, "bank", None, "set");
    assert_eq!(write(here, vec![alarm]).await, [Applied::Yes]);
}

pub(super) async fn a_document_is_deleted_as_it_was_read(handles: Handles) {
    let (here, there) = (&*handles.here, &*handles.there);
    assert_eq!(write(here, vec![delete("bank", None)]).await, [Applied::Yes], "there is none");
    write(here, vec![put(SYSTEM, "bank", None, "up")]).await;
    write(here, vec![put(SYSTEM, "bank", Some(1), "up")]).await;
    for expects in [None, Some(1), Some(3)] {
        assert_eq!(write(there, vec![delete("bank", expects)]).await, [Applied::Conflict]);
    }
    assert_eq!(write(there, vec![delete("bank", Some(2))]).await, [Applied::Yes]);
    assert_eq!(one(here, "bank").await, None);
    assert_eq!(write(here, vec![delete("bank", Some(2))]).await, [Applied::Conflict]);
    assert_eq!(write(here, vec![put(SYSTEM, "bank", None, "up")]).await, [Applied::Yes]);
    assert_eq!(one(there, "bank").await.unwrap().version, 1, "it begins anew");
}

pub(super) async fn changes_of_one_document_see_each_other(handles: Handles) {
    let changes = vec![
        put(SYSTEM, "b", None, "one"),
        put(SYSTEM, "b", None, "never"),
        put(SYSTEM, "a", None, "only"),
        put(SYSTEM, "b", Some(1), "two"),
        put(SYSTEM, "b", Some(1), "never"),
        delete("b", Some(2)),
        put(SYSTEM, "b", None, "anew"),
    ];
    let applied = write(&*handles.here, changes).await;
    let (yes, no) = (Applied::Yes, Applied::Conflict);
    assert_eq!(applied, [yes, no, yes, yes, no, yes, yes]);
    let found = of(&*handles.there, SYSTEM, &["b", "a"]).await;
    let found: Vec<_> = found.iter().map(|it| (&*it.key, it.version, &*it.state)).collect();
    assert_eq!(found, [("a", 1, "only"), ("b", 1, "anew")]);
    assert_eq!(write(&*handles.here, Vec::new()).await, []);
}

pub(super) async fn a_conflict_leaves_other_documents(handles: Handles) {
    write(&*handles.here, vec![put(SYSTEM, "b", None, "old")]).await;
    let changes = ["a", "b", "c"].map(|key| put(SYSTEM, key, None, "new")).to_vec();
    let applied = write(&*handles.there, changes).await;
    assert_eq!(applied, [Applied::Yes, Applied::Conflict, Applied::Yes]);
    let found = of(&*handles.here, SYSTEM, &["a", "b", "c"]).await;
    let states: Vec<_> = found.iter().map(|document| &*document.state).collect();
    assert_eq!(states, ["new", "old", "new"]);
}

pub(super) async fn racing_writers_lose_nothing(handles: Handles) {
    const WRITERS: u64 = 6;
    const WRITES: u64 = 10;
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..WRITERS {
        let store: Arc<dyn StateStore> =
            if number % 2 == 0 { handles.here.clone() } else { handles.there.clone() };
        writers.spawn(async move {
            // Each in another order, so that whoever locks as it comes would wait in a circle.
            let keys = if number < WRITERS / 2 { ["a", "b", "c"] } else { ["c", "b", "a"] };
            let mut left = [WRITES; 3];
            while left.iter().any(|left| *left > 0) {
                let mut changes = Vec::new();
                for key in keys {
                    let version = one(&*store, key).await.map(|document| document.version);
                    changes.push(put(SYSTEM, key, version, "up"));
                }
                let applied = write(&*store, changes).await;
                for (left, applied) in left.iter_mut().zip(applied) {
                    *left = left.saturating_sub(u64::from(applied == Applied::Yes));
                }
            }
        });
    }
    // A writer that is done with one document goes on with it until it is done with all.
    writers.join_all().await;
    for document in of(&*handles.here, SYSTEM, &["a", "b", "c"]).await {
        assert!(document.version >= WRITERS * WRITES, "{document:?}");
    }
    let mut firsts = tokio::task::JoinSet::new();
    for number in 0..WRITERS {
        let store: Arc<dyn StateStore> =
            if number % 2 == 0 { handles.here.clone() } else { handles.there.clone() };
        firsts.spawn(async move {
            let raised = put(Collection::Escalation, "once", None, "open");
            write(&*store, vec![raised]).await == [Applied::Yes]
        });
    }
    let firsts = firsts.join_all().await;
    assert_eq!(firsts.iter().filter(|first| **first).count(), 1, "one is the first");
}

pub(super) async fn a_document_comes_back_as_it_was_written(handles: Handles) {
    let (here, there) = (&*handles.here, &*handles.there);
    let awkward = "O'Brien \"; DROP TABLE document; -- \u{202e}\n\t\\ 🦀 é".to_owned();
    let body = Json::parse(r#" {"b":1.50,"a":[ ],"ü":"\u0001"} "#).unwrap();
    for (key, collection) in ["", &awkward, "a/1/2"].into_iter().zip(Collection::ALL) {
        let content = Content { state: awkward.clone(), due_in: Some(LONG), body: body.clone() };
        let change = DocumentChange { put: Some(content), ..put(collection, key, None, "") };
        let written = here.write_documents(vec![change]).await.unwrap();
        assert_eq!(written.applied, [Applied::Yes]);
        let found = of(there, collection, &["no", key, key]).await;
        let [document] = &found[..] else { panic!("{found:?}") };
        assert_eq!((document.collection, &*document.key), (collection, key));
        assert_eq!((&document.state, &document.body), (&awkward, &body));
        assert!(document.created_at <= written.now && document.written_at <= written.now);
        let due = document.due_at.unwrap().duration_since(document.written_at);
        assert!(due.unsigned_abs().abs_diff(LONG) < Duration::from_secs(1), "{due:?}");
    }
    assert!(of(there, SYSTEM, &[]).await.is_empty());
    let far = DocumentQuery::Keys { collection: SYSTEM, keys: vec!["far".to_owned()] };
    write(here, vec![due(SYSTEM, "far", Duration::MAX)]).await;
    let found = there.read_documents(far).await.unwrap();
    assert!(found.found[0].due_at.is_some_and(|at| at > found.now), "never, but no error");
}

pub(super) async fn what_is_due_comes_longest_due_first(handles: Handles) {
    let (here, there) = (&*handles.here, &*handles.there);
    let due_now = async |limit| read(there, DocumentQuery::Due { limit }).await;
    assert!(due_now(10).await.is_empty());
    // One call each, so that none is due in the same moment as another.
    for (collection, key) in [
        (Collection::Escalation, "first"),
        (Collection::System, "second"),
        (Collection::Alarm, "third"),
        (Collection::System, "fourth"),
    ] {
        let before = due_now(10).await.len();
        write(here, vec![due(collection, key, Duration::ZERO)]).await;
        until("it is due", async || (due_now(10).await.len() > before).then_some(())).await;
    }
    write(here, vec![due(SYSTEM, "later", LONG), put(SYSTEM, "never", None, "up")]).await;
    assert_eq!(keys(&due_now(10).await), ["first", "second", "third", "fourth"]);
    assert_eq!(keys(&due_now(3).await), ["first", "second", "third"]);
    assert!(due_now(0).await.is_empty());
    // Whoever has looked says when to look again, if ever.
    let looked = |key, due_in| {
        let change = put(SYSTEM, key, Some(1), "up");
        let content = change.put.map(|content| Content { due_in, ..content });
        DocumentChange { put: content, ..change }
    };
    write(there, vec![looked("second", None), looked("fourth", Some(LONG))]).await;
    assert_eq!(keys(&due_now(10).await), ["first", "third"]);
}

pub(super) async fn documents_are_listed_newest_first(handles: Handles) {
    let (here, there) = (&*handles.here, &*handles.there);
    let collection = Collection::Escalation;
    let mut newest_first = Vec::new();
    for call in 0..3 {
        // Those of one call may be of one time.
        let of_call = [format!("{call} Z"), format!("{call} a"), format!("{call} é")];
        for key in &of_call {
            let state = if key.ends_with('a') { "open" } else { "done" };
            write(here, vec![put(collection, key, None, state)]).await;
        }
        newest_first.splice(0..0, of_call.into_iter().rev());
    }
    write(here, vec![put(SYSTEM, "other", None, "open")]).await;
    // What is written anew keeps its place.
    write(there, vec![put(collection, "0 a", Some(1), "open")]).await;
    let all = page(there, collection, None, None, 0).await;
    let in_order = |page: &[Document]| {
        page.is_sorted_by(|a, b| (a.created_at, &a.key) > (b.created_at, &b.key))
    };
    assert!(in_order(&all), "newest first, then by key: {all:?}");
    let mut found = keys(&all);
    found.sort_unstable();
    let mut expected: Vec<_> = newest_first.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let open = page(there, collection, Some("open"), None, 0).await;
    assert_eq!(keys(&open), ["2 a", "1 a", "0 a"]);
    assert!(page(there, collection, Some("closed"), None, 0).await.is_empty());
    for state in [None, Some("done")] {
        let whole = page(there, collection, state, None, 0).await;
        let mut pages: Vec<Document> = Vec::new();
        loop {
            let after = pages.last().map(|last| (last.created_at, last.key.clone()));
            let page = page(here, collection, state, after, 2).await;
            assert!(page.len() <= 2);
            if page.is_empty() {
                break;
            }
            pages.extend(page);
        }
        assert_eq!(pages, whole, "the pages together are the whole list");
    }
}

pub(super) async fn pages_of_documents_are_limited(handles: Handles) {
    let store = &*handles.here;
    let many: Vec<_> =
        (0..1100).map(|nr| put(Collection::Alarm, &format!("{nr:04}"), None, "set")).collect();
    let applied = write(store, many).await;
    assert!(applied.iter().all(|applied| *applied == Applied::Yes));
    for (limit, expected) in [(0, 100), (7, 7), (1000, 1000), (usize::MAX, 1000)] {
        for state in [None, Some("set")] {
            let found = page(store, Collection::Alarm, state, None, limit).await;
            assert_eq!(found.len(), expected);
        }
    }
}
