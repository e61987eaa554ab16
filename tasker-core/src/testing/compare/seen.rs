//! Answers as text, without what may differ between stores: timestamps, and order where the
//! contract leaves it open.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::history::Recorded;
use crate::store::{
    Claimed, Committed, Created, Document, Documents, News, Renewed, StoredTask, TaskSummary,
};

/// The limit between soon and in hours.
const HOUR: Duration = Duration::from_secs(3600);

fn row(row: &Recorded) -> String {
    format!("{:?} {:?}", row.author, row.transition)
}

pub(super) fn stored(task: &StoredTask) -> String {
    let rows: Vec<_> = task.rows.iter().map(row).collect();
    let waits = task.wake_at.map(|at| at.duration_since(task.now) > SignedDuration::from_hours(1));
    let past = |row: &Recorded| task.created_at <= row.at && row.at <= task.now;
    format!(
        "{} {:?} {} {} {} degraded {} version {} {:?} ended {} waits {waits:?} on {:?} in time {} {rows:#?}",
        task.id,
        task.template.fingerprint(),
        task.context,
        task.priority,
        task.state,
        task.degraded,
        task.version,
        task.owner,
        task.ended_at.is_some(),
        task.route,
        task.rows.iter().all(past) && task.ended_at.is_none_or(|at| at <= task.now),
    )
}

pub(super) fn created(created: &[Created]) -> String {
    let created = created.iter().map(|created| match created {
        Created::New { claimed, .. } => format!("new, version {claimed:?}"),
        Created::Existing { id, input_digest } => format!("existing {id} {input_digest}"),
    });
    created.collect::<Vec<_>>().join(", ")
}

/// What a claim brought; tasks of several routes come in any order.
pub(super) fn claimed(claimed: &Claimed, any_order: bool) -> String {
    let Claimed::Work(work) = claimed else { return "lease lost".to_owned() };
    let mut tasks: Vec<_> = work.tasks.iter().map(stored).collect();
    if any_order {
        tasks.sort_unstable();
    }
    let offers = work.offers.iter();
    let offers = offers.map(|it| format!("{:?} {} of {}", it.step, it.seq, stored(&it.task)));
    let mut offers: Vec<_> = offers.collect();
    offers.sort_unstable();
    let news = work.news.iter().map(|news| match news {
        News::Settled { task, row: settled } => format!("{task} settled {}", row(settled)),
        News::Revoked { task } => format!("{task} revoked"),
    });
    let mut news: Vec<_> = news.collect();
    news.sort_unstable();
    let next = work.next_in.map(|next| (next.is_zero(), next > HOUR));
    format!("tasks {tasks:#?} offers {offers:#?} news {news:#?} next {next:?}")
}

pub(super) fn committed(committed: &Committed) -> String {
    match committed {
        Committed::LeaseLost => "lease lost".to_owned(),
        Committed::Changes { applied, .. } => format!("{applied:?}"),
    }
}

pub(super) fn renewed(renewed: &Renewed) -> String {
    match renewed {
        Renewed::LeaseLost => "lease lost".to_owned(),
        Renewed::Until { others_spare, next_expiry, systems, next_due, .. } => {
            let others = if next_expiry.is_some() { "others" } else { "no others" };
            let due = next_due.map(|next| (next.is_zero(), next > HOUR));
            format!("renewed, {others} could run {others_spare}, systems {systems}, due {due:?}")
        }
    }
}

/// What was read of documents.
pub(super) fn documents(documents: &Documents, any_order: bool) -> String {
    let now = documents.now;
    let found = documents.found.iter().map(|it| {
        let due = it.due_at.map(|at| at.duration_since(now) > SignedDuration::from_hours(1));
        let in_time = it.created_at <= it.written_at && it.written_at <= now;
        let (collection, key, version) = (it.collection, &it.key, it.version);
        let (state, body) = (&it.state, &it.body);
        format!("{collection} {key} {version} {state} due {due:?} {body} in time {in_time}")
    });
    let mut found: Vec<_> = found.collect();
    if any_order {
        found.sort_unstable();
    }
    found.join(", ")
}

/// Where a document stands in a list.
pub(super) fn place(document: &Document) -> (Timestamp, String) {
    (document.created_at, document.key.clone())
}

pub(super) fn found(found: &[TaskSummary]) -> String {
    let found = found.iter().map(|task| {
        let (id, of, state) = (task.id, &task.task_type, task.state);
        format!("{id} {of} {state} {} {}", task.degraded, task.ended_at.is_some())
    });
    found.collect::<Vec<_>>().join(", ")
}
