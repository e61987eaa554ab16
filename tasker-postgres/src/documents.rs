//! Documents: written by compare and swap, read by key, by time and in pages.

use sqlx::postgres::PgRow;
use tasker_core::store::board::after;
use tasker_core::store::{
    Applied, Collection, Content, Document, DocumentChange, DocumentQuery, Documents,
    DocumentsWritten,
};
use tasker_core::{Json, Timestamp};

use crate::database::{Session, Work, statement};
use crate::fault::Fault;
use crate::rows::{At, Columns, column, count, micros, timestamp};

/// A request to write documents.
pub(crate) struct WriteDocuments(pub(crate) Vec<DocumentChange>);

impl Work for WriteDocuments {
    type Answer = DocumentsWritten;

    fn weight(&self) -> usize {
        let contents = self.0.iter().filter_map(|change| change.put.as_ref());
        contents.map(|content| content.body.as_str().len()).sum()
    }

    async fn run(self, session: &mut Session<'_>) -> Result<DocumentsWritten, Fault> {
        let Self(changes) = self;
        let mut applied = vec![Applied::Conflict; changes.len()];
        let mut sorted: Vec<(usize, DocumentChange)> = changes.into_iter().enumerate().collect();
        // In the order of the keys, so that two calls with the same keys never wait for each other;
        // those of one key stay in theirs.
        sorted.sort_by(|(_, a), (_, b)| (a.collection, &a.key).cmp(&(b.collection, &b.key)));
        let several = sorted.len() > 1;
        if several {
            session.begin().await?;
        }
        let mut now = None;
        for (place, change) in sorted {
            let (time, holds) = write_one(session, change).await?;
            now = Some(time);
            if holds {
                applied[place] = Applied::Yes;
            }
        }
        if several {
            session.commit().await?;
        }
        let now = match now {
            Some(now) => timestamp(now)?,
            None => read(session, DocumentQuery::Due { limit: 0 }).await?.now,
        };
        Ok(DocumentsWritten { now, applied })
    }
}

/// Writes a document if it is as it was read; the time, and whether it was.
async fn write_one(
    session: &mut Session<'_>,
    change: DocumentChange,
) -> Result<(i64, bool), Fault> {
    let (mut state, mut due_in, mut body) = (None, None, None);
    if let Some(content) = change.put {
        state = Some(content.state);
        due_in = content.due_in.map(micros);
        body = Some(content.body.as_str().to_owned());
    }
    let query = statement(&session.database.sql.write_document)
        .bind(change.collection.as_str())
        .bind(change.key)
        .bind(change.expects.map(count))
        .bind(state)
        .bind(due_in)
        .bind(body);
    let row = session.fetch_one(query).await?;
    let mut columns = Columns::of(&row);
    Ok((columns.time()?, columns.next()?))
}

/// A document that is to be added.
pub(crate) struct New {
    pub(crate) collection: Collection,
    pub(crate) key: String,
    pub(crate) put: Content,
}

impl New {
    /// Those changes that add something.
    pub(crate) fn among(changes: impl IntoIterator<Item = DocumentChange>) -> Vec<Self> {
        let added =
            changes.into_iter().filter_map(|DocumentChange { collection, key, put, .. }| {
                put.map(|put| Self { collection, key, put })
            });
        added.collect()
    }
}

/// Adds those documents that do not exist yet, as of `now`.
pub(crate) async fn insert(
    session: &mut Session<'_>,
    now: i64,
    changes: Vec<DocumentChange>,
) -> Result<(), Fault> {
    let new = New::among(changes);
    if new.is_empty() {
        return Ok(());
    }
    let query = statement(&session.database.sql.insert_documents)
        .bind(column(&new, |new| new.collection.as_str()))
        .bind(column(&new, |new| new.key.clone()))
        .bind(column(&new, |new| new.put.state.clone()))
        .bind(column(&new, |new| new.put.due_in.map(|wait| At(after(now, wait)))))
        .bind(column(&new, |new| new.put.body.as_str().to_owned()))
        .bind(At(now));
    session.run(query).await?;
    Ok(())
}

/// A request to read documents.
pub(crate) struct ReadDocuments(pub(crate) DocumentQuery);

impl Work for ReadDocuments {
    type Answer = Documents;

    async fn run(self, session: &mut Session<'_>) -> Result<Documents, Fault> {
        read(session, self.0).await
    }
}

async fn read(session: &mut Session<'_>, query: DocumentQuery) -> Result<Documents, Fault> {
    let limit = count(query.page_size() as u64);
    let sql = &session.database.sql;
    let query = match query {
        DocumentQuery::Keys { collection, keys } => {
            statement(&sql.select_documents).bind(collection.as_str()).bind(keys)
        }
        DocumentQuery::Due { .. } => statement(&sql.select_documents_due).bind(limit),
        DocumentQuery::List { collection, state, after, .. } => {
            let latest = || (Timestamp::MAX, String::new());
            let (created_at, key) = after.unwrap_or_else(latest);
            let text = match state {
                Some(_) => &sql.list_documents_in_state,
                None => &sql.list_documents,
            };
            let list = statement(text)
                .bind(collection.as_str())
                .bind(At(created_at.as_microsecond()))
                .bind(key)
                .bind(limit);
            match state {
                Some(state) => list.bind(state),
                None => list,
            }
        }
    };
    let rows = session.fetch(query).await?;
    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let now = timestamp(Columns::of(first).time()?)?;
    let found = rows.iter().filter_map(|row| read_document(row).transpose());
    let found = found.collect::<Result<_, _>>()?;
    Ok(Documents { now, found })
}

/// A document; `None` where the time stands alone.
fn read_document(row: &PgRow) -> Result<Option<Document>, Fault> {
    let mut columns = Columns::of(row);
    columns.skip(1);
    let Some(collection) = columns.next::<Option<&str>>()? else { return Ok(None) };
    Ok(Some(Document {
        collection: collection.parse()?,
        key: columns.next()?,
        version: columns.next::<i64>()?.unsigned_abs(),
        state: columns.next()?,
        due_at: columns.maybe_time()?.map(timestamp).transpose()?,
        body: columns.json()?.unwrap_or_else(Json::null),
        created_at: timestamp(columns.time()?)?,
        written_at: timestamp(columns.time()?)?,
    }))
}
