//! The server that tests use: one that somebody runs, or a throw-away one of our own.

use std::{
    env,
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use tokio::sync::OnceCell;

use crate::{
    Database, Error, Schema,
    cluster::Cluster,
    database::{self, Home},
    url,
};

/// A PostgreSQL server with databases and schemas to be had.
///
/// One that the kit started listens on 127.0.0.1 alone, lets everybody in as `postgres`, and ends
/// when it is dropped or when the process ends, be it by SIGKILL: its processes and its directory
/// are gone a moment later.
pub struct Server {
    /// A database of the server that is there already, as whoever may create others.
    url: String,
    /// `None`: somebody else runs it.
    cluster: Option<Cluster>,
}

/// How a server of one's own is set up. The default is for tests: fast, and as safe from the death
/// of processes as any, because what is written is the kernel's to keep.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Survive the loss of power as well, with PostgreSQL's own defaults: for measuring, and slow.
    pub durable: bool,
    /// How many sessions there may be.
    pub max_connections: u32,
    /// More of `postgresql.conf`, as `name=value`.
    pub parameters: Vec<String>,
    /// Where it keeps its data, in a directory of its own: on the disk that is to be measured, and
    /// where the account that the server runs under may go. By default, the system's place for
    /// what is temporary.
    pub within: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { durable: false, max_connections: 300, parameters: Vec::new(), within: None }
    }
}

impl Settings {
    /// The arguments of `postgres`.
    pub(crate) fn parameters(&self) -> Vec<String> {
        let mut all = vec![
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            format!("max_connections={}", self.max_connections),
        ];
        if !self.durable {
            // Not `synchronous_commit`: without it a commit is lost with the postmaster.
            all.push("fsync=off".to_owned());
            // In our directory, since what is in /dev/shm outlives a killed server.
            all.push("dynamic_shared_memory_type=mmap".to_owned());
        }
        all.extend_from_slice(&self.parameters);
        all.into_iter().flat_map(|parameter| ["-c".to_owned(), parameter]).collect()
    }
}

impl Server {
    /// The one server of this process: that of `DATABASE_URL` if it names a PostgreSQL, else one
    /// that the first caller starts with the default [`Settings`].
    ///
    /// # Errors
    ///
    /// There is no PostgreSQL ([`Error::NotFound`] says what to do), or it does not start. The
    /// next call tries again.
    pub async fn shared() -> Result<&'static Self, Error> {
        static SHARED: OnceCell<Server> = OnceCell::const_new();
        SHARED
            .get_or_try_init(async || match env::var("DATABASE_URL") {
                Ok(url) if url::is_postgres(&url) => Self::at(&url),
                _ => Self::start(Settings::default()).await,
            })
            .await
    }

    /// The server that somebody else runs at `url`. Connects to nothing yet.
    ///
    /// What is made in it is dropped with its guard, as far as that is possible.
    ///
    /// # Errors
    ///
    /// [`Error::Url`], if it is none of a PostgreSQL over TCP.
    pub fn at(url: &str) -> Result<Self, Error> {
        url::address(url)?;
        Ok(Self { url: url.to_owned(), cluster: None })
    }

    /// A new server for the caller alone, whatever `DATABASE_URL` says; takes about a second.
    ///
    /// # Errors
    ///
    /// As [`shared`](Self::shared).
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        let cluster = Cluster::start(&settings).await?;
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", cluster.port());
        Ok(Self { url, cluster: Some(cluster) })
    }

    /// The URL of a database of this server, which need not exist. It stays valid over
    /// [`crash`](Self::crash) and [`start_again`](Self::start_again).
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        // `at` has seen that the URL has parts.
        url::with_database(&self.url, database).unwrap_or_else(|_| self.url.clone())
    }

    /// Creates an empty database, which takes some 50 ms. Most tests do with a [`schema`].
    ///
    /// [`schema`]: Self::schema
    ///
    /// # Errors
    ///
    /// [`Error::Sql`]: the server is down, or the user may not create databases.
    pub async fn database(&self) -> Result<Database, Error> {
        database::create(self.home()).await
    }

    /// A name for a schema that nobody else uses, in a database that others share. The schema is
    /// not created: that is the store's business, or the test's.
    #[must_use]
    pub fn schema(&self) -> Schema {
        Schema::new(self.home())
    }

    fn home(&self) -> Home {
        // What is in a server of our own is gone with it soon enough.
        Home { url: self.url.clone(), must_clear: self.cluster.is_none() }
    }

    /// Kills the postmaster (SIGKILL) and returns once it is dead and its port refuses.
    ///
    /// Its sessions notice a moment later, and may end what they are about. They are gone when
    /// [`start_again`](Self::start_again) returns. Does nothing to a server that does not run.
    ///
    /// # Errors
    ///
    /// [`Error::NotOurs`], for a server that somebody else runs.
    pub async fn crash(&mut self) -> Result<(), Error> {
        self.cluster("crash the server")?.kill(Signal::KILL).await
    }

    /// Stops the server in an orderly way: sessions are ended, what is in memory is written. It
    /// can be [started again](Self::start_again); drop it to be rid of it.
    ///
    /// # Errors
    ///
    /// [`Error::NotOurs`], for a server that somebody else runs.
    pub async fn stop(&mut self) -> Result<(), Error> {
        self.cluster("stop the server")?.kill(Signal::INT).await
    }

    /// Starts a server that crashed or was stopped: same port, same data. Returns once it has
    /// recovered and takes connections; at once if it runs.
    ///
    /// # Errors
    ///
    /// [`Error::NotOurs`], for a server that somebody else runs; [`Error::Server`], if it does not
    /// start within a minute.
    pub async fn start_again(&mut self) -> Result<(), Error> {
        self.cluster("start the server")?.start_again().await
    }

    /// The postmaster's process id; `None` if it does not run or is not ours.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.cluster.as_ref()?.pid()
    }

    /// Where a server of our own keeps everything, its `log` included.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.cluster.as_ref().map(Cluster::directory)
    }

    fn cluster(&mut self, what: &'static str) -> Result<&mut Cluster, Error> {
        self.cluster.as_mut().ok_or(Error::NotOurs { what })
    }
}
