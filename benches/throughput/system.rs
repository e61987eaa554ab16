//! What is measured: a new store, an engine on it, and workers.

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "sqlite")]
use tasker::sqlite::{SqliteOptions, Synchronous};
use tasker::store::StateStore;
use tasker::{MemoryStore, Tasker, Worker};
#[cfg(feature = "sqlite")]
use tempfile::TempDir;

#[cfg(feature = "sqlite")]
use crate::args::Durability;
use crate::args::{Args, Shape, StoreKind};
use crate::counting::CountingStore;
#[cfg(feature = "postgres")]
use crate::postgres;
use crate::{Failed, shape, usage};

/// Where stores are made.
pub(crate) struct Places {
    #[cfg(feature = "postgres")]
    pub(crate) postgres: Option<postgres::Place>,
}

impl Places {
    pub(crate) async fn find(args: &Args) -> Result<Self, Failed> {
        match args.store {
            #[cfg(feature = "postgres")]
            StoreKind::Postgres => Ok(Self { postgres: Some(postgres::Place::find(args).await?) }),
            _ => Ok(Self {
                #[cfg(feature = "postgres")]
                postgres: None,
            }),
        }
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn postgres(&self) -> Result<&postgres::Place, Failed> {
        self.postgres.as_ref().ok_or_else(|| "this needs --store postgres".into())
    }
}

/// A new store, an engine on it and a worker.
pub(crate) struct System {
    pub(crate) tasker: Tasker,
    pub(crate) store: Arc<CountingStore>,
    worker: Option<Worker>,
    #[cfg(feature = "postgres")]
    workers: Option<postgres::worker::Processes>,
    home: Home,
}

/// What the store needs, and what has to be cleared up.
enum Home {
    Process,
    #[cfg(feature = "sqlite")]
    File(TempDir),
    #[cfg(feature = "postgres")]
    Postgres(postgres::Home),
}

impl System {
    pub(crate) async fn start(
        args: &Args,
        places: &Places,
        shapes: &[Shape],
    ) -> Result<Self, Failed> {
        let (store, home) = open(args, places).await?;
        let store = Arc::new(CountingStore::new(store));
        let tasker = shape::tasker(store.clone(), shapes)?;
        let here = !args.submit_only && !elsewhere(args);
        let worker = here.then(|| tasker.worker().slots(args.slots).start());
        #[cfg(feature = "postgres")]
        let workers = match &home {
            Home::Postgres(home) if !here && !args.submit_only => {
                Some(postgres::worker::Processes::start(args, home, store.clone()).await?)
            }
            _ => None,
        };
        Ok(Self {
            tasker,
            store,
            worker,
            #[cfg(feature = "postgres")]
            workers,
            home,
        })
    }

    /// User and system time of this process and of the workers' so far.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        let here = usage::cpu_time()?;
        #[cfg(feature = "postgres")]
        if let Some(workers) = &self.workers {
            return Some(here + workers.cpu_time()?);
        }
        Some(here)
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn postgres(&self) -> Option<&postgres::Home> {
        match &self.home {
            Home::Postgres(home) => Some(home),
            _ => None,
        }
    }

    /// Starts to count what the server does, if there is one.
    #[cfg(feature = "postgres")]
    pub(crate) async fn meter(&self, places: &Places) -> Result<Option<postgres::Meter>, Failed> {
        let Some((place, home)) = places.postgres.as_ref().zip(self.postgres()) else {
            return Ok(None);
        };
        Ok(Some(place.meter(home.schema.name()).await?))
    }

    /// Stops the workers and closes the store; then [clear](Stopped::clear) it up.
    pub(crate) async fn stop(self) -> Result<Stopped, Failed> {
        if let Some(worker) = self.worker {
            worker.shutdown(Duration::from_secs(10)).await;
        }
        #[cfg(feature = "postgres")]
        if let Some(workers) = self.workers {
            workers.stop().await?;
        }
        #[cfg(feature = "postgres")]
        if let Home::Postgres(home) = &self.home {
            home.close().await;
        }
        Ok(Stopped { home: self.home })
    }
}

/// A closed store.
#[must_use]
pub(crate) struct Stopped {
    home: Home,
}

impl Stopped {
    /// Removes what was stored.
    pub(crate) async fn clear(self) -> Result<(), Failed> {
        match self.home {
            Home::Process => Ok(()),
            #[cfg(feature = "sqlite")]
            Home::File(dir) => Ok(dir.close()?),
            #[cfg(feature = "postgres")]
            Home::Postgres(home) => home.clear().await,
        }
    }
}

#[cfg(feature = "postgres")]
const fn elsewhere(args: &Args) -> bool {
    args.postgres.workers > 0
}

#[cfg(not(feature = "postgres"))]
const fn elsewhere(_: &Args) -> bool {
    false
}

async fn open(args: &Args, places: &Places) -> Result<(Arc<dyn StateStore>, Home), Failed> {
    #[cfg(not(feature = "postgres"))]
    let Places {} = places;
    match args.store {
        StoreKind::Memory => Ok((Arc::new(MemoryStore::new()), Home::Process)),
        #[cfg(feature = "sqlite")]
        StoreKind::Sqlite => {
            let dir = tempfile::tempdir_in(&args.dir)?;
            let options = SqliteOptions::new(dir.path().join("tasks.db"));
            let synchronous = match args.durability {
                Durability::Full => Synchronous::Full,
                Durability::Normal => Synchronous::Normal,
            };
            let store = options.synchronous(synchronous).open().await?;
            Ok((Arc::new(store), Home::File(dir)))
        }
        #[cfg(feature = "postgres")]
        StoreKind::Postgres => {
            let home = places.postgres()?.store(args.postgres.connections).await?;
            Ok((home.store.clone(), Home::Postgres(home)))
        }
    }
}
