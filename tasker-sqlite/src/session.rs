//! One transaction that may write, and what the operations in it share.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use tasker_core::store::StoredTask;
use tasker_core::store::board::Standing;
use tasker_core::{TaskId, TaskTemplate, WorkerId};
use tokio::sync::oneshot;

use crate::bulk::{Bulk, Values};
use crate::fault::{Fault, unless_unreadable};
use crate::known::{Extras, Known};
use crate::rows::{Columns, Unfolding, read_line};
use crate::templates::Templates;

static HISTORY: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new(include_str!("../queries/select_history.sql")));

/// What a caller asked for, where the answer goes, and the answer until it is durable.
pub(crate) struct Ask<Q, A> {
    pub(crate) request: Q,
    pub(crate) answer: oneshot::Sender<Result<A, tasker_core::store::StoreError>>,
    pub(crate) outcome: Option<A>,
}

/// An open transaction.
pub(crate) struct Session<'a> {
    pub(crate) connection: &'a mut SqliteConnection,
    pub(crate) known: &'a mut Known,
    pub(crate) templates: &'a Templates,
    /// The clock's time for all that happens in the transaction.
    pub(crate) now: i64,
    /// Whether to look for rows that are there already, instead of failing on them.
    pub(crate) careful: bool,
    /// Whether something was written that may give a worker something to do.
    pub(crate) gives_work: bool,
}

impl Session<'_> {
    pub(crate) async fn run(&mut self, query: &'static str, values: Values) -> Result<u64, Fault> {
        let query = sqlx::query_with(query, values.finish()?);
        Ok(query.execute(&mut *self.connection).await?.rows_affected())
    }

    pub(crate) async fn fetch(
        &mut self,
        query: &'static str,
        values: Values,
    ) -> Result<Vec<SqliteRow>, Fault> {
        let query = sqlx::query_with(query, values.finish()?);
        Ok(query.fetch_all(&mut *self.connection).await?)
    }

    pub(crate) async fn run_bulk<T>(
        &mut self,
        bulk: &Bulk,
        items: &[T],
        bind: impl Fn(&mut Values, &T),
    ) -> Result<u64, Fault> {
        bulk.run(self.connection, items, bind).await
    }

    pub(crate) async fn fetch_bulk<T>(
        &mut self,
        bulk: &Bulk,
        items: &[T],
        bind: impl Fn(&mut Values, &T),
    ) -> Result<Vec<SqliteRow>, Fault> {
        bulk.fetch(self.connection, items, bind).await
    }

    pub(crate) async fn template(&mut self, key: i64) -> Result<Arc<TaskTemplate>, Fault> {
        self.templates.get(self.connection, key).await
    }

    /// Whether a worker has a lease, even one that ran out but that nobody has taken over.
    pub(crate) async fn has_lease(&mut self, worker: WorkerId) -> Result<bool, Fault> {
        Ok(self.known.lives(worker) || self.look_up(worker).await?.0)
    }

    /// Whether a worker lives, and whether it is known to be gone for good.
    pub(crate) async fn look_up(&mut self, worker: WorkerId) -> Result<(bool, bool), Fault> {
        let mut values = Values::default();
        values.put_worker(worker);
        let rows = self.fetch(include_str!("../queries/select_worker.sql"), values).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let mut columns = Columns::of(row);
        let (lives, gone) = (columns.next()?, columns.next()?);
        if lives {
            self.known.is_alive(worker);
        }
        Ok((lives, gone))
    }

    /// Whether there may be any offers and any news.
    pub(crate) async fn extras(&mut self) -> Result<Extras, Fault> {
        if let Some(extras) = self.known.extras {
            return Ok(extras);
        }
        let query = include_str!("../queries/select_extras.sql");
        let rows = self.fetch(query, Values::default()).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let mut columns = Columns::of(row);
        let extras = Extras { offers: columns.next()?, news: columns.next()? };
        self.known.extras = Some(extras);
        Ok(extras)
    }

    /// Brings tasks with their whole histories, in the order in which they are given, without
    /// those that cannot be read.
    pub(crate) async fn unfold(
        &mut self,
        tasks: Vec<(TaskId, Standing)>,
    ) -> Result<Vec<StoredTask>, Fault> {
        let rows =
            self.fetch_bulk(&HISTORY, &tasks, |values, (id, _)| _ = values.put_task(*id)).await?;
        let mut places = HashMap::with_capacity(tasks.len());
        let mut unfolding = Vec::with_capacity(tasks.len());
        for (id, standing) in tasks {
            let template = unless_unreadable(id, self.template(standing.template).await)?;
            places.insert(id, unfolding.len());
            unfolding.push(template.map(|template| Unfolding::new(id, standing, template)));
        }
        for row in &rows {
            let id = Columns::of(row).task()?;
            let place = places.get(&id).and_then(|place| unfolding.get_mut(*place));
            let Some(place) = place else { continue };
            let Some(task) = place else { continue };
            match unless_unreadable(id, read_line(&mut Columns::of(row)))? {
                Some((_, line)) => task.add(line),
                None => *place = None,
            }
        }
        let mut unfolded = Vec::with_capacity(unfolding.len());
        for task in unfolding.into_iter().flatten() {
            unfolded.extend(unless_unreadable(task.id, task.finish(self.now))?);
        }
        Ok(unfolded)
    }
}
