//! What can go wrong with a server for tests: always something for the person who runs the tests.

use std::{fmt, io};

/// Why there is no server, or why it did not do what was asked.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither `DATABASE_URL` nor PostgreSQL binaries: install them or set it.
    #[error(
        "no PostgreSQL for the tests: {looked}
  Debian, Ubuntu:  apt-get install postgresql
  Fedora, RHEL:    dnf install postgresql-server
  macOS:           brew install postgresql@17
  elsewhere:       set TASKER_POSTGRES_BIN to the directory that holds initdb and postgres
  or use a running server that may create databases and schemas:
                   DATABASE_URL=postgres://user:password@host:5432/database"
    )]
    NotFound {
        /// Where it was looked for.
        looked: String,
    },
    /// The server did not start, or did not end; its log says why.
    #[error("{what}; the log ends with:\n{log}")]
    Server {
        /// What was attempted.
        what: String,
        /// The last lines of the server's log.
        log: String,
    },
    /// The server is one that somebody else runs: use [`Server::start`](crate::Server::start) for
    /// a test that stops it.
    #[error("cannot {what}: the server is not one that this process started")]
    NotOurs {
        /// What was attempted.
        what: &'static str,
    },
    /// The URL is none that the kit understands: `postgres://user@host:port/database`.
    #[error("not the URL of a PostgreSQL over TCP: {url}")]
    Url {
        /// What was given.
        url: String,
    },
    /// The operating system refused something.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The server refused a statement or could not be reached.
    #[error("cannot {what}: {source}")]
    Sql {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// As [`Display`](fmt::Display): tests unwrap it, and what to install must be readable then.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn sql(what: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        let what = what.into();
        move |source| Self::Sql { what, source: Box::new(source) }
    }
}
