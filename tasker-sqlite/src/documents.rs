//! Documents: written by compare and swap, read by key, by time and in pages.

use std::sync::LazyLock;

use jiff::Timestamp;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use tasker_core::Json;
use tasker_core::store::board::after;
use tasker_core::store::{
    Applied, Content, Document, DocumentChange, DocumentQuery, Documents, DocumentsWritten,
};

use crate::bulk::{Bulk, Values};
use crate::fault::Fault;
use crate::rows::{Columns, count, timestamp};
use crate::session::{Ask, Session};

static INSERT: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new(include_str!("../queries/insert_documents.sql")));

/// Writes documents, each if its version is the one that was read.
pub(crate) async fn write(
    session: &mut Session<'_>,
    asks: &mut [Ask<Vec<DocumentChange>, DocumentsWritten>],
) -> Result<(), Fault> {
    for Ask { request, outcome, .. } in asks {
        let mut applied = Vec::with_capacity(request.len());
        for change in request.iter() {
            let holds = write_one(session, change).await?;
            applied.push(if holds { Applied::Yes } else { Applied::Conflict });
        }
        *outcome = Some(DocumentsWritten { now: timestamp(session.now)?, applied });
    }
    Ok(())
}

async fn write_one(session: &mut Session<'_>, change: &DocumentChange) -> Result<bool, Fault> {
    let mut values = Values::default();
    values.put(change.collection.as_str()).put(change.key.as_str());
    match (change.expects, &change.put) {
        (None, Some(_)) => Ok(insert(session, std::slice::from_ref(change)).await? == 1),
        (Some(version), Some(Content { state, due_in, body })) => {
            values.put(count(version)).put(state.as_str());
            values.put(due_in.map(|wait| after(session.now, wait)));
            values.put(body.as_str()).put(session.now);
            Ok(session.run(include_str!("../queries/update_document.sql"), values).await? == 1)
        }
        (Some(version), None) => {
            values.put(count(version));
            Ok(session.run(include_str!("../queries/delete_document.sql"), values).await? == 1)
        }
        (None, None) => {
            let mut values = Values::default();
            values.put(change.collection.as_str());
            values.put(serde_json::json!([change.key]).to_string());
            let query = include_str!("../queries/select_documents.sql");
            Ok(session.fetch(query, values).await?.is_empty())
        }
    }
}

/// Adds those documents that do not exist yet, and says how many.
pub(crate) async fn insert(
    session: &mut Session<'_>,
    changes: &[DocumentChange],
) -> Result<u64, Fault> {
    let now = session.now;
    let new: Vec<_> =
        changes.iter().filter_map(|change| Some((change, change.put.as_ref()?))).collect();
    session
        .run_bulk(&INSERT, &new, |values, (change, Content { state, due_in, body })| {
            values.put(change.collection.as_str()).put(change.key.as_str()).put(state.as_str());
            values.put(due_in.map(|wait| after(now, wait))).put(body.as_str()).put(now);
        })
        .await
}

pub(crate) async fn read(readers: &SqlitePool, query: &DocumentQuery) -> Result<Documents, Fault> {
    let limit = count(query.page_size() as u64);
    let mut values = Values::default();
    let text = match query {
        DocumentQuery::Keys { collection, keys } => {
            values.put(collection.as_str()).put(serde_json::json!(keys).to_string());
            include_str!("../queries/select_documents.sql")
        }
        DocumentQuery::Due { .. } => {
            values.put(Timestamp::now().as_microsecond()).put(limit);
            include_str!("../queries/select_documents_due.sql")
        }
        DocumentQuery::List { collection, state, after, .. } => {
            let (before, key) = match after {
                Some((created_at, key)) => (created_at.as_microsecond(), key.as_str()),
                None => (i64::MAX, ""),
            };
            values.put(collection.as_str()).put(state.as_deref()).put(before).put(key).put(limit);
            match state {
                Some(_) => include_str!("../queries/list_documents_in_state.sql"),
                None => include_str!("../queries/list_documents.sql"),
            }
        }
    };
    let mut connection = readers.acquire().await?;
    let rows = sqlx::query_with(text, values.finish()?).fetch_all(&mut *connection).await?;
    // Not before: what was found may have been written meanwhile.
    let now = Timestamp::now();
    let found = rows.iter().map(read_document).collect::<Result<_, _>>()?;
    Ok(Documents { now, found })
}

fn read_document(row: &SqliteRow) -> Result<Document, Fault> {
    let mut columns = Columns::of(row);
    Ok(Document {
        collection: columns.next::<&str>()?.parse()?,
        key: columns.next()?,
        version: columns.next::<i64>()?.unsigned_abs(),
        state: columns.next()?,
        due_at: columns.next::<Option<i64>>()?.map(timestamp).transpose()?,
        body: columns.json()?.unwrap_or_else(Json::null),
        created_at: timestamp(columns.next()?)?,
        written_at: timestamp(columns.next()?)?,
    })
}
