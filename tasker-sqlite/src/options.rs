//! How a store is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{OpenError, SqliteStore};

/// When a commit is on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// Before the call that committed returns: nothing that was acknowledged is ever lost.
    #[default]
    Full,
    /// Some time later. A crash of the process loses nothing, but a power failure or a crash of
    /// the operating system may undo the last commits, although they were acknowledged; the file
    /// stays sound. Only for tasks that may be submitted again.
    Normal,
}

/// How to open a [`SqliteStore`].
///
/// ```
/// # async fn example(path: &std::path::Path) -> Result<(), tasker_sqlite::OpenError> {
/// use std::time::Duration;
/// use tasker_sqlite::SqliteOptions;
///
/// let store = SqliteOptions::new(path).deadline(Duration::from_secs(5)).open().await?;
/// # store.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    pub(crate) path: PathBuf,
    pub(crate) synchronous: Synchronous,
    pub(crate) deadline: Duration,
    pub(crate) readers: u32,
}

impl SqliteOptions {
    /// The defaults, for a file that is made if it is missing; its directory must exist.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            synchronous: Synchronous::default(),
            deadline: Duration::from_secs(30),
            readers: 4,
        }
    }

    /// When a commit is on the disk; [`Synchronous::Full`] unless said otherwise.
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// How long a call may wait for the disk and for other processes before it fails with
    /// [`StoreError::Unavailable`]; 30 seconds unless said otherwise.
    ///
    /// [`StoreError::Unavailable`]: tasker_core::store::StoreError::Unavailable
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How many connections may read at once; 4 unless said otherwise, and at least 1.
    pub fn readers(mut self, readers: u32) -> Self {
        self.readers = readers.max(1);
        self
    }

    /// Opens the store.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong with which file, and what to do.
    pub async fn open(self) -> Result<SqliteStore, OpenError> {
        SqliteStore::open_with(self).await
    }
}
