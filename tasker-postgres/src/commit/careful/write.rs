//! Writes what a batch of changes adds up to, with one statement for each table.

use std::collections::HashSet;
use std::sync::Arc;

use tasker_core::history::{Author, OccurrenceColumns};
use tasker_core::store::board::{Effects, log_of};
use tasker_core::{Priority, TaskId};
use uuid::Uuid;

use crate::database::{Session, Statement, statement};
use crate::documents;
use crate::fault::Fault;
use crate::rows::{At, column, count, int, log_int, nanos};

/// Writes them as of `now`, the time that they were worked out for.
pub(super) async fn write(
    session: &mut Session<'_>,
    now: i64,
    mut effects: Effects<'_>,
) -> Result<(), Fault> {
    insert_history(session, now, &effects).await?;
    move_in_queue(session, &effects).await?;
    update_tasks(session, &effects).await?;
    write_offers(session, &effects).await?;
    documents::insert(session, now, std::mem::take(&mut effects.documents)).await?;
    let news = &effects.news;
    if !news.is_empty() {
        let query = statement(&session.database.sql.insert_news)
            .bind(column(news, |told| told.worker.as_uuid()))
            .bind(column(news, |told| told.task.as_uuid()))
            .bind(column(news, |told| told.row.map(|(step, _)| log_int(step))))
            .bind(column(news, |told| told.row.map(|(_, seq)| int(seq))));
        session.run(query).await?;
    }
    Ok(())
}

async fn insert_history(
    session: &mut Session<'_>,
    now: i64,
    effects: &Effects<'_>,
) -> Result<(), Fault> {
    let rows = &effects.rows;
    if rows.is_empty() {
        return Ok(());
    }
    let mut what: Vec<OccurrenceColumns> = Vec::with_capacity(rows.len());
    for (.., row) in rows {
        what.push(row.what.to_columns()?);
    }
    let authors = rows.iter().map(|(_, author, _)| match author {
        Author::Worker(worker) => (Some(worker.as_uuid()), None),
        Author::Operator(name) => (None, Some(name.as_str())),
    });
    let (workers, operators): (Vec<Option<Uuid>>, Vec<Option<&str>>) = authors.unzip();
    let query = statement(&session.database.sql.insert_history)
        .bind(column(rows, |(task, ..)| task.as_uuid()))
        .bind(column(rows, |(.., row)| log_int(log_of(row.step))))
        .bind(column(rows, |(.., row)| int(row.seq)))
        .bind(workers)
        .bind(operators)
        .bind(column(rows, |(.., row)| int(row.attempt)))
        .bind(column(rows, |(.., row)| nanos(row.ran_for)))
        .bind(column(&what, |what| what.kind.as_str()))
        .bind(column(&what, |what| what.result.as_ref().map(|json| json.as_str())))
        .bind(column(&what, |what| what.detail.as_ref().map(|json| json.as_str())))
        .bind(At(now));
    session.run(query).await?;
    Ok(())
}

/// Rows of the queue, as parameters.
#[derive(Default)]
pub(super) struct Places {
    route: Vec<String>,
    priority: Vec<i16>,
    wake_at: Vec<At>,
    task: Vec<Uuid>,
}

impl Places {
    /// Adds a row; without a route it is on the one of its template.
    pub(super) async fn put(
        &mut self,
        session: &mut Session<'_>,
        task: TaskId,
        route: Option<&Arc<str>>,
        template: i64,
        priority: Priority,
        wake_at: i64,
    ) -> Result<(), Fault> {
        self.route.push(match route {
            Some(route) => route.to_string(),
            None => session.template(template).await?.task_type().to_string(),
        });
        self.priority.push(priority.to_stored());
        self.wake_at.push(At(wake_at));
        self.task.push(task.as_uuid());
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.task.is_empty()
    }

    pub(super) fn bind(self, statement: Statement) -> Statement {
        statement.bind(self.route).bind(self.priority).bind(self.wake_at).bind(self.task)
    }
}

async fn move_in_queue(session: &mut Session<'_>, effects: &Effects<'_>) -> Result<(), Fault> {
    let mut gone = Places::default();
    for it in &effects.unqueued {
        let route = it.route.as_ref();
        gone.put(session, it.task, route, it.template, it.priority, it.wake_at).await?;
    }
    if !gone.is_empty() {
        let query = gone.bind(statement(&session.database.sql.delete_queue));
        session.run(query).await?;
    }
    let queued = &effects.queued;
    if !queued.is_empty() {
        let query = statement(&session.database.sql.insert_queue)
            .bind(column(queued, |it| &*it.route))
            .bind(column(queued, |it| it.priority.to_stored()))
            .bind(column(queued, |it| At(it.wake_at)))
            .bind(column(queued, |it| it.task.as_uuid()));
        session.run(query).await?;
    }
    Ok(())
}

async fn update_tasks(session: &mut Session<'_>, effects: &Effects<'_>) -> Result<(), Fault> {
    let moved = &effects.moved;
    if !moved.is_empty() {
        let query = statement(&session.database.sql.update_tasks)
            .bind(column(moved, |(id, _)| id.as_uuid()))
            .bind(column(moved, |(_, task)| task.state.as_str()))
            .bind(column(moved, |(_, task)| task.degraded))
            .bind(column(moved, |(_, task)| count(task.version)))
            .bind(column(moved, |(_, task)| task.owner.map(|owner| owner.as_uuid())))
            .bind(column(moved, |(_, task)| task.route.as_deref()))
            .bind(column(moved, |(_, task)| task.wake_at.map(At)))
            .bind(column(moved, |(_, task)| task.ended_at.map(At)));
        session.run(query).await?;
    }
    let touched: HashSet<Uuid> = effects.rows.iter().map(|(task, ..)| task.as_uuid()).collect();
    if !touched.is_empty() {
        let touched: Vec<Uuid> = touched.into_iter().collect();
        session.run(statement(&session.database.sql.mark_touched).bind(touched)).await?;
    }
    Ok(())
}

async fn write_offers(session: &mut Session<'_>, effects: &Effects<'_>) -> Result<(), Fault> {
    let gone = effects.offers_gone.iter();
    let gone = gone.flat_map(|(task, steps)| steps.iter().map(|step| (task.as_uuid(), *step)));
    let (tasks, steps): (Vec<Uuid>, Vec<i32>) =
        gone.map(|(task, step)| (task, log_int(step))).unzip();
    if !tasks.is_empty() {
        let query = statement(&session.database.sql.delete_offers);
        session.run(query.bind(tasks).bind(steps)).await?;
    }
    let made = &effects.offers_made;
    if made.is_empty() {
        return Ok(());
    }
    let needs = (1i64..).zip(made);
    let needs = needs.flat_map(|(nr, (_, offer))| offer.needs.iter().map(move |it| (nr, it.0)));
    let (numbers, needs): (Vec<i64>, Vec<i32>) = needs.map(|(nr, step)| (nr, int(step))).unzip();
    let query = statement(&session.database.sql.insert_offers)
        .bind(column(made, |(task, _)| task.as_uuid()))
        .bind(column(made, |(_, offer)| int(offer.step.0)))
        .bind(column(made, |(_, offer)| int(offer.seq)))
        .bind(column(made, |(_, offer)| offer.route.as_str()))
        .bind(numbers)
        .bind(needs);
    session.run(query).await?;
    Ok(())
}
