//! How a store is opened.

use std::time::Duration;

use crate::retention::Keep;
use crate::{OpenError, PostgresStore};

/// How to open a [`PostgresStore`].
///
/// ```no_run
/// # async fn example() -> Result<(), tasker_postgres::OpenError> {
/// use std::time::Duration;
/// use tasker_postgres::PostgresOptions;
///
/// let store = PostgresOptions::new("postgres://app@db.example/app")
///     .schema("workflows")
///     .deadline(Duration::from_secs(3))
///     .open()
///     .await?;
/// # store.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresOptions {
    pub(crate) url: String,
    pub(crate) listen_url: Option<String>,
    pub(crate) schema: String,
    pub(crate) connections: u32,
    pub(crate) transactional_steps: u32,
    pub(crate) deadline: Duration,
    pub(crate) longest_poll: Duration,
    pub(crate) migrate: bool,
    pub(crate) pooled: bool,
    pub(crate) keep: Keep,
}

impl std::fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URLs may have passwords in them.
        f.debug_struct("PostgresOptions").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl PostgresOptions {
    /// The defaults, for a database by its URL: `postgres://user:password@host:port/database`.
    ///
    /// What the URL leaves out comes from the environment, as for `psql`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            listen_url: None,
            schema: "tasker".to_owned(),
            connections: 10,
            transactional_steps: 10,
            deadline: Duration::from_secs(4),
            longest_poll: Duration::from_secs(1),
            migrate: true,
            pooled: false,
            keep: Keep::default(),
        }
    }

    /// The schema that the tables live in; `tasker` unless said otherwise.
    ///
    /// Stores with different schemas have nothing to do with each other. A name may have up to 50
    /// bytes, so that the names made of it fit.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// How many connections there are at most, beside the one that listens and those of
    /// [transactional steps](Self::transactional_steps); 10 unless said otherwise, and at least 1.
    ///
    /// A worker needs about four of them however many steps it runs; what HTTP handlers and the
    /// like submit and read comes on top.
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// How many [transactional steps](PostgresStore::transactional) run at once, each on a
    /// connection of its own that is made when it is first needed; 10 unless said otherwise, and at
    /// least 1.
    pub fn transactional_steps(mut self, steps: u32) -> Self {
        self.transactional_steps = steps.max(1);
        self
    }

    /// How long a call may wait for a connection and then for the database, each, before it fails
    /// with [`StoreError::Unavailable`]; together 4 seconds unless said otherwise.
    ///
    /// Workers try again by themselves. Keep it well below their lease.
    ///
    /// [`StoreError::Unavailable`]: tasker_core::store::StoreError::Unavailable
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Says that the URL leads to a pooler that hands sessions around ("transaction pooling").
    ///
    /// The store then leaves the settings of its sessions alone, because others would get them too.
    /// It relies on three of them to keep its plans good while tables grow from nothing, so give
    /// them to its user: `ALTER ROLE … SET plan_cache_mode = force_generic_plan`, and in the same
    /// way `enable_seqscan = off` and `jit = off`.
    pub fn behind_pooler(mut self) -> Self {
        self.pooled = true;
        self
    }

    /// Another URL of the same database for the connection that listens for notifications, if the
    /// first one leads to a pooler that hands sessions around.
    ///
    /// Without it, workers behind such a pooler notice that notifications do not arrive and poll.
    pub fn listen_url(mut self, url: impl Into<String>) -> Self {
        self.listen_url = Some(url.into());
        self
    }

    /// While notifications do not arrive, the longest wait between two looks for work; 1 second
    /// unless said otherwise.
    pub fn longest_poll(mut self, poll: Duration) -> Self {
        self.longest_poll = poll.max(Duration::from_millis(1));
        self
    }

    /// Whether to make or update the tables if that is needed; true unless said otherwise.
    ///
    /// A user without the right to do so says no here, and somebody who has it calls
    /// [`migrate`](Self::migrate_only) first.
    pub fn migrate(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// For how long tasks are kept that completed, were cancelled or compensated, or that a person
    /// has seen to; for ever unless said otherwise.
    ///
    /// The store then calls for [`delete_ended`](PostgresStore::delete_ended) in the background,
    /// about once an hour, of all stores on the schema one at a time, in small batches with pauses.
    pub fn keep_ended(mut self, age: Duration) -> Self {
        self.keep.ended = Some(age);
        self
    }

    /// For how long failed tasks are kept, which somebody may want to retry; for ever unless said
    /// otherwise.
    pub fn keep_failed(mut self, age: Duration) -> Self {
        self.keep.failed = Some(age);
        self
    }

    /// Makes or updates the tables, and nothing else.
    ///
    /// Any number of processes may do so at once, and one that dies half-way has done nothing.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong, and what to do.
    pub async fn migrate_only(self) -> Result<(), OpenError> {
        crate::open::migrate(&self).await
    }

    /// Opens the store.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong, and what to do.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn open(self) -> Result<PostgresStore, OpenError> {
        PostgresStore::open_with(self).await
    }
}
