//! Hints that there may be work, within this process and between processes.
//!
//! What this store writes wakes its own workers at once. Workers of other stores are notified, but
//! only if one of them waits, because notifications make commits queue up behind each other. A
//! worker that finds nothing first notes that it waits and then looks once more; whoever gives work
//! first commits and then looks whether anybody waits. So one of the two sees the other, and no
//! hint is lost as long as its sender lives and the connection that listens stands.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool};
use sqlx::{Acquire, Connection};
use tasker_core::WorkerId;
use tasker_core::store::occasions::Occasions;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::database::{Database, Session, Work, statement};
use crate::fault::Fault;

/// The least time between two notifications, and between two looks whether anybody waits.
const PAUSE: Duration = Duration::from_millis(5);

/// The same while nobody waits.
const LONGEST_PAUSE: Duration = Duration::from_millis(40);

/// The longest wait before a notification that failed is tried again.
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// How long a notification to oneself may take before the connection is held to be deaf, as it is
/// behind a pooler that hands sessions around.
const DEAF_AFTER: Duration = Duration::from_secs(5);

/// How often a deaf connection is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// How often the connection that listens is asked whether it still stands: one that a router has
/// forgotten, or whose server has vanished, looks like one on which nothing happens.
const ASKED_EVERY: Duration = Duration::from_secs(30);

/// While nothing can be heard, the first wait between two looks at the queue.
const FIRST_POLL: Duration = Duration::from_millis(20);

/// Who waits, and for what.
#[derive(Debug)]
pub(crate) struct Hints {
    occasions: Occasions,
    /// Told when other stores may have to be notified.
    given: Notify,
    /// Whether notifications arrive.
    hears: watch::Sender<bool>,
    workers: Mutex<HashMap<WorkerId, Waiting>>,
    /// Marks this store's own notifications.
    store: Uuid,
    channel: String,
    longest_poll: Duration,
}

/// What is known of a worker of this process.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    /// Whether the database knows that it waits.
    noted: bool,
    /// How many claims in a row found nothing.
    idle: u32,
}

impl Hints {
    pub(crate) fn new(schema: &str, longest_poll: Duration) -> Self {
        Self {
            occasions: Occasions::default(),
            given: Notify::new(),
            hears: watch::Sender::new(false),
            workers: Mutex::default(),
            store: Uuid::now_v7(),
            channel: format!("{schema}.work"),
            longest_poll,
        }
    }

    /// Something was committed that may give a worker something to do.
    pub(crate) fn there_may_be_work(&self) {
        self.occasions.arise();
        self.given.notify_one();
    }

    /// The channel, and what to say in it of tasks that somebody else is about to commit: the
    /// workers of this store hear it as well.
    pub(crate) fn announcement(&self) -> (&str, &'static str) {
        (&self.channel, "submitted")
    }

    /// What the lock of the one process is called that deletes ended tasks.
    pub(crate) fn retention(&self) -> String {
        format!("{}.retention", self.channel)
    }

    /// A worker is about to look at everything that there is.
    pub(crate) fn looks(&self, worker: WorkerId) {
        self.occasions.looks(worker);
    }

    /// What a worker's look came to.
    pub(crate) fn found(&self, worker: WorkerId, something: bool) {
        let mut workers = self.workers();
        let waiting = workers.entry(worker).or_default();
        waiting.idle = if something { 0 } else { waiting.idle.saturating_add(1) };
    }

    /// Whether the database knows that a worker waits.
    pub(crate) fn is_noted(&self, worker: WorkerId) -> bool {
        self.workers().get(&worker).is_some_and(|waiting| waiting.noted)
    }

    /// The database was told that a worker waits: only once it has answered, since nobody would
    /// tell it again.
    pub(crate) fn noted(&self, worker: WorkerId) {
        self.workers().entry(worker).or_default().noted = true;
    }

    /// A worker has more than enough to do: true if the database has to be told that it no longer
    /// waits.
    pub(crate) fn stops_waiting(&self, worker: WorkerId) -> bool {
        let mut workers = self.workers();
        let waiting = workers.entry(worker).or_default();
        std::mem::take(&mut waiting.noted)
    }

    /// A worker of this process is alive.
    pub(crate) fn lives(&self, worker: WorkerId) {
        self.workers().entry(worker).or_default();
    }

    /// A worker of this process is gone.
    pub(crate) fn is_gone(&self, worker: WorkerId) {
        self.workers().remove(&worker);
        self.occasions.forget(worker);
    }

    /// Waits for an occasion that a worker's last claim has not seen, or for its next poll.
    pub(crate) async fn wait(&self, worker: WorkerId, max: Duration) {
        let mut occasion = pin!(self.occasions.unseen_by(worker));
        let Waiting { idle, .. } = self.workers().get(&worker).copied().unwrap_or_default();
        let began = Instant::now();
        let mut hears = self.hears.subscribe();
        loop {
            let max = if *hears.borrow_and_update() { max } else { max.min(self.poll(idle)) };
            let left = max.saturating_sub(began.elapsed());
            tokio::select! {
                () = &mut occasion => return,
                () = tokio::time::sleep(left) => return,
                // Then something may have been missed.
                _ = hears.changed() => {}
            }
        }
    }

    /// How long a worker that cannot be notified waits after so many looks in vain.
    fn poll(&self, idle: u32) -> Duration {
        let grown = FIRST_POLL.saturating_mul(1 << idle.min(16));
        let longest = grown.min(self.longest_poll);
        // Up to a quarter less, so that many workers do not poll in step.
        let jitter = u32::try_from(self.store.as_u128() % 256).unwrap_or(0);
        longest - longest / 1024 * jitter
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<WorkerId, Waiting>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notifies other stores, if anybody waits there.
struct NotifyOthers;

impl Work for NotifyOthers {
    type Answer = bool;

    async fn run(self, session: &mut Session<'_>) -> Result<bool, Fault> {
        let hints = &session.database.hints;
        let own: Vec<Uuid> = hints.workers().keys().map(|worker| worker.as_uuid()).collect();
        let query = statement(&session.database.sql.notify)
            .bind(&hints.channel)
            .bind(hints.store.to_string())
            .bind(own);
        Ok(!session.fetch(query).await?.is_empty())
    }
}

/// Notifies other stores of what this one commits, without end.
pub(crate) async fn notify(database: Arc<Database>) {
    let mut pause = PAUSE;
    loop {
        database.hints.given.notified().await;
        match database.perform_here(NotifyOthers).await {
            Ok(true) => pause = PAUSE,
            Ok(false) => pause = (pause * 2).min(LONGEST_PAUSE),
            Err(fault) => {
                tracing::debug!(code = fault.code(), "other workers cannot be notified yet");
                // The hint is still owed.
                database.hints.given.notify_one();
                pause = (pause * 2).min(LONGEST_RETRY);
            }
        }
        // What is given meanwhile makes one more notification.
        tokio::time::sleep(pause).await;
    }
}

/// Listens for the notifications of other stores, without end.
///
/// `connect` gives a pool for one connection: each has its own, so that one which hangs cannot keep
/// the next one waiting.
pub(crate) async fn listen(database: Arc<Database>, connect: impl Fn() -> PgPool) {
    let mut told = false;
    loop {
        let heard = hear(&database, &connect()).await;
        database.hints.hears.send_if_modified(|hears| std::mem::replace(hears, false));
        let deaf = matches!(heard, Err(Deafness::Pooler));
        if deaf && !std::mem::replace(&mut told, true) {
            tracing::info!("notifications do not arrive (a pooler?): polling for work instead");
        }
        tokio::time::sleep(if deaf { RETRY } else { FIRST_POLL * 10 }).await;
    }
}

/// Why nothing can be heard.
enum Deafness {
    /// The connection was lost, or cannot be made.
    Lost,
    /// It stands, and nothing arrives.
    Pooler,
}

impl From<sqlx::Error> for Deafness {
    fn from(_: sqlx::Error) -> Self {
        Self::Lost
    }
}

/// Listens until the connection is lost. First a notification to oneself must arrive.
async fn hear(database: &Arc<Database>, connections: &PgPool) -> Result<(), Deafness> {
    let hints = &database.hints;
    let mut listener = PgListener::connect_with(connections).await?;
    listener.eager_reconnect(false);
    listener.listen(&hints.channel).await?;
    let probe = Uuid::now_v7().to_string();
    let send = sqlx::query("SELECT pg_notify($1, $2)").bind(&hints.channel).bind(&probe);
    let sent = tokio::time::timeout(DEAF_AFTER, send.execute(&database.pool)).await;
    sent.map_err(|_| Deafness::Lost)??;
    let arrives = async {
        while let Some(heard) = listener.try_recv().await? {
            if heard.payload() == probe {
                return Ok(());
            }
        }
        Err(Deafness::Lost)
    };
    tokio::time::timeout(DEAF_AFTER, arrives).await.map_err(|_| Deafness::Pooler)??;
    hints.hears.send_replace(true);
    // What was given before is looked for now.
    hints.occasions.arise();
    let own = hints.store.to_string();
    loop {
        match tokio::time::timeout(ASKED_EVERY, listener.try_recv()).await {
            Ok(heard) => match heard? {
                Some(heard) if heard.payload() == own => {}
                Some(_) => hints.occasions.arise(),
                None => return Ok(()),
            },
            Err(_) => {
                // Not a query, only a round trip.
                let asked = async { listener.acquire().await?.ping().await };
                tokio::time::timeout(DEAF_AFTER, asked).await.map_err(|_| Deafness::Lost)??;
            }
        }
    }
}
