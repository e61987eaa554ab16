//! The one task that writes: it commits together what arrives together.
//!
//! While a transaction runs the next operations queue up, and all of them make the next
//! transaction: there is no timer, so a lone operation starts at once. Callers only wait for an
//! answer, so a caller that is dropped leaves nothing open. Operations that run in one transaction
//! were all waiting at the same time, so they may run in any order: leases first, claims last,
//! because they find what the others have queued.

use std::sync::Arc;
use std::time::Duration;

use backoff::{BackoffBuilder, ExponentialBuilder};
use jiff::Timestamp;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tasker_core::WorkerId;
use tasker_core::store::{
    ClaimRequest, Claimed, Committed, Created, DocumentChange, DocumentsWritten, Heartbeat, Renewed,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::bulk::Values;
use crate::commit::Commit;
use crate::create::Create;
use crate::fault::Fault;
use crate::known::Known;
use crate::open;
use crate::retention::{Sweep, Swept};
use crate::rows::Columns;
use crate::session::{Ask, Session};
use crate::templates::Templates;
use crate::watch::Watch;
use crate::{claim, commit, create, documents, lease, retention};

/// How many operations join one transaction at most.
const BATCH: usize = 256;

/// An operation and who waits for it.
pub(crate) enum Operation {
    Create(Ask<Create, Vec<Created>>),
    Claim(Ask<ClaimRequest, Claimed>),
    Commit(Ask<Commit, Committed>),
    Write(Ask<Vec<DocumentChange>, DocumentsWritten>),
    Renew(Ask<Heartbeat, Renewed>),
    TakeOver(Ask<usize, Vec<WorkerId>>),
    Delete(Ask<Sweep, Swept>),
    /// Nothing to do: look whether another process has written.
    Look,
}

/// The operations of one transaction.
#[derive(Default)]
struct Batch {
    renewals: Vec<Ask<Heartbeat, Renewed>>,
    creations: Vec<Ask<Create, Vec<Created>>>,
    commits: Vec<Ask<Commit, Committed>>,
    writes: Vec<Ask<Vec<DocumentChange>, DocumentsWritten>>,
    take_overs: Vec<Ask<usize, Vec<WorkerId>>>,
    claims: Vec<Ask<ClaimRequest, Claimed>>,
    deletions: Vec<Ask<Sweep, Swept>>,
}

impl Batch {
    fn add(&mut self, operation: Operation) {
        // Whoever has stopped waiting wants nothing any more.
        match operation {
            Operation::Create(ask) if !ask.answer.is_closed() => self.creations.push(ask),
            Operation::Claim(ask) if !ask.answer.is_closed() => self.claims.push(ask),
            Operation::Commit(ask) if !ask.answer.is_closed() => self.commits.push(ask),
            Operation::Write(ask) if !ask.answer.is_closed() => self.writes.push(ask),
            Operation::Renew(ask) if !ask.answer.is_closed() => self.renewals.push(ask),
            Operation::TakeOver(ask) if !ask.answer.is_closed() => self.take_overs.push(ask),
            Operation::Delete(ask) if !ask.answer.is_closed() => self.deletions.push(ask),
            Operation::Create(_)
            | Operation::Claim(_)
            | Operation::Commit(_)
            | Operation::Write(_)
            | Operation::Renew(_)
            | Operation::TakeOver(_)
            | Operation::Delete(_)
            | Operation::Look => {}
        }
    }

    fn len(&self) -> usize {
        self.renewals.len()
            + self.creations.len()
            + self.commits.len()
            + self.writes.len()
            + self.take_overs.len()
            + self.claims.len()
            + self.deletions.len()
    }

    /// The same operations, each in a batch of its own, in the order in which they would run.
    fn split(self) -> impl Iterator<Item = Self> {
        let Self { renewals, creations, commits, writes, take_overs, claims, deletions } = self;
        let renewals = renewals.into_iter().map(Operation::Renew);
        let creations = creations.into_iter().map(Operation::Create);
        let commits = commits.into_iter().map(Operation::Commit);
        let writes = writes.into_iter().map(Operation::Write);
        let take_overs = take_overs.into_iter().map(Operation::TakeOver);
        let claims = claims.into_iter().map(Operation::Claim);
        let deletions = deletions.into_iter().map(Operation::Delete);
        let operations = renewals.chain(creations).chain(commits).chain(writes);
        let operations = operations.chain(take_overs).chain(claims).chain(deletions);
        operations.map(|operation| {
            let mut alone = Self::default();
            alone.add(operation);
            alone
        })
    }

    async fn run(&mut self, session: &mut Session<'_>) -> Result<(), Fault> {
        lease::renew(session, &mut self.renewals).await?;
        create::create(session, &mut self.creations).await?;
        commit::commit(session, &mut self.commits).await?;
        documents::write(session, &mut self.writes).await?;
        lease::take_over(session, &mut self.take_overs).await?;
        claim::claim(session, &mut self.claims).await?;
        retention::delete(session, &mut self.deletions).await
    }

    /// Tells everybody what is durable now.
    fn answer(self) {
        self.renewals.into_iter().for_each(answer);
        self.creations.into_iter().for_each(answer);
        self.commits.into_iter().for_each(answer);
        self.writes.into_iter().for_each(answer);
        self.take_overs.into_iter().for_each(answer);
        self.claims.into_iter().for_each(answer);
        self.deletions.into_iter().for_each(answer);
    }

    fn fail(self, fault: &Fault) {
        self.renewals.into_iter().for_each(|ask| fail(ask, fault));
        self.creations.into_iter().for_each(|ask| fail(ask, fault));
        self.commits.into_iter().for_each(|ask| fail(ask, fault));
        self.writes.into_iter().for_each(|ask| fail(ask, fault));
        self.take_overs.into_iter().for_each(|ask| fail(ask, fault));
        self.claims.into_iter().for_each(|ask| fail(ask, fault));
        self.deletions.into_iter().for_each(|ask| fail(ask, fault));
    }
}

fn answer<Q, A>(ask: Ask<Q, A>) {
    if let Some(outcome) = ask.outcome {
        // Whoever has stopped waiting learns it in another way.
        _ = ask.answer.send(Ok(outcome));
    }
}

fn fail<Q, A>(ask: Ask<Q, A>, fault: &Fault) {
    _ = ask.answer.send(Err(fault.to_store_error()));
}

/// The connection that writes, and what it knows.
pub(crate) struct Writer {
    pub(crate) options: SqliteConnectOptions,
    pub(crate) connection: Option<SqliteConnection>,
    pub(crate) known: Known,
    pub(crate) templates: Arc<Templates>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) deadline: Duration,
    /// The time of the last transaction; the next one is not earlier.
    pub(crate) clock: i64,
}

impl Writer {
    /// Runs what arrives until nobody can send any more.
    pub(crate) async fn run(mut self, mut arrivals: mpsc::Receiver<Operation>) {
        while let Some(first) = arrivals.recv().await {
            let mut batch = Batch::default();
            let mut look = matches!(first, Operation::Look);
            batch.add(first);
            while batch.len() < BATCH
                && let Ok(next) = arrivals.try_recv()
            {
                look |= matches!(next, Operation::Look);
                batch.add(next);
            }
            if batch.len() > 0 {
                self.commit(batch).await;
            } else if look {
                self.look().await;
            }
        }
        if let Some(connection) = self.connection {
            _ = connection.close().await;
        }
    }

    /// Commits a batch and answers; if one operation spoils it, each gets a transaction of its own.
    async fn commit(&mut self, mut batch: Batch) {
        match self.transact(&mut batch, false).await {
            Ok(()) => batch.answer(),
            Err(fault) if fault.is_of_one_operation() => {
                tracing::debug!(operations = batch.len(), "running a batch one by one");
                for mut alone in batch.split() {
                    match self.transact(&mut alone, true).await {
                        Ok(()) => alone.answer(),
                        Err(fault) => alone.fail(&fault),
                    }
                }
            }
            Err(fault) => {
                tracing::warn!(code = fault.code(), "the SQLite store is not available");
                batch.fail(&fault);
            }
        }
    }

    async fn transact(&mut self, batch: &mut Batch, careful: bool) -> Result<(), Fault> {
        let result = self.try_transact(batch, careful).await;
        if result.is_err() {
            self.known.forget();
            self.templates.forget();
            self.roll_back().await;
        }
        result
    }

    async fn try_transact(&mut self, batch: &mut Batch, careful: bool) -> Result<(), Fault> {
        let data_version = self.begin().await?;
        let others_wrote = self.known.observe(data_version);
        self.clock = self.clock.max(Timestamp::now().as_microsecond());
        let connection = self.connection.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        let mut session = Session {
            connection,
            known: &mut self.known,
            templates: &self.templates,
            now: self.clock,
            careful,
            gives_work: others_wrote,
        };
        batch.run(&mut session).await?;
        let gives_work = session.gives_work;
        let commit = include_str!("../queries/commit.sql");
        session.run(commit, Values::default()).await?;
        for claim in &batch.claims {
            self.watch.occasions.looks(claim.request.worker);
        }
        if gives_work {
            self.watch.occasions.arise();
        }
        Ok(())
    }

    /// Opens a transaction, waiting for other processes until the deadline.
    ///
    /// SQLite's lock is not fair, so a process waits in short turns: whoever sleeps for long never
    /// finds it free beside a busy one.
    async fn begin(&mut self) -> Result<i64, Fault> {
        let give_up_at = Instant::now() + self.deadline;
        let turns = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(1))
            .with_max_delay(Duration::from_millis(10))
            .with_jitter()
            .without_max_times();
        let mut turns = turns.build();
        loop {
            match self.try_begin().await {
                Err(fault) if fault.is_busy() && Instant::now() < give_up_at => {
                    self.roll_back().await;
                    let wait = turns.next().unwrap_or(Duration::from_millis(10));
                    tokio::time::sleep(wait).await;
                }
                result => return result,
            }
        }
    }

    async fn try_begin(&mut self) -> Result<i64, Fault> {
        let connection = self.connected().await?;
        let query = sqlx::query(include_str!("../queries/begin.sql"));
        let row = query.fetch_one(connection).await?;
        Columns::of(&row).next()
    }

    async fn roll_back(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        match sqlx::query(include_str!("../queries/rollback.sql")).execute(connection).await {
            // Without a transaction there is nothing to roll back, and SQLite says so.
            Ok(_) | Err(sqlx::Error::Database(_)) => {}
            // Closing the connection rolls back as well.
            Err(_) => self.connection = None,
        }
    }

    async fn connected(&mut self) -> Result<&mut SqliteConnection, Fault> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.known.forget_connection();
                open::connect(&self.options).await?
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// Looks whether another process has written, which may give work.
    async fn look(&mut self) {
        let query = sqlx::query(include_str!("../queries/data_version.sql"));
        let Ok(connection) = self.connected().await else { return };
        let Ok(row) = query.fetch_one(connection).await else { return };
        if let Ok(data_version) = Columns::of(&row).next::<i64>()
            && self.known.observe(data_version)
        {
            self.watch.occasions.arise();
        }
    }
}
