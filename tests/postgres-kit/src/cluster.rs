//! A PostgreSQL of our own: a directory, a port that stays the same, and a postmaster that can be
//! killed and started again.

use std::{
    fs::{self, DirBuilder},
    io::ErrorKind,
    net::TcpListener,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{net::TcpStream, time::sleep};

use crate::{
    Error, Settings, binaries,
    database::unique_name,
    guardian::{Guardian, News},
};

/// Nothing here takes this long; a machine under load may.
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

pub(crate) struct Cluster {
    directory: PathBuf,
    guardian: Guardian,
    port: u16,
}

impl Cluster {
    pub(crate) async fn start(settings: &Settings) -> Result<Self, Error> {
        let binaries = binaries::find()?;
        let within = settings.within.clone().unwrap_or_else(std::env::temp_dir);
        let directory = within.join(unique_name());
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(Error::io(format!("create {}", directory.display())))?;
        let guardian = match Guardian::of(&directory, &binaries, &settings.parameters()) {
            Ok(guardian) => guardian,
            Err(error) => {
                // Nobody else will; if it fails too, the first error says more.
                let _ = fs::remove_dir_all(&directory);
                return Err(error);
            }
        };
        let mut cluster = Self { directory, guardian, port: 0 };
        cluster.guardian.order("initialise")?;
        let news = cluster.guardian.wait(LIMIT, |n| matches!(n, News::Initialised(_))).await;
        if news != Some(News::Initialised(0)) {
            return Err(cluster.failed("initdb failed"));
        }
        // Another process may take the port before the server does.
        let mut started = Ok(false);
        for _ in 0..5 {
            cluster.port = free_port()?;
            started = cluster.attempt(Instant::now() + LIMIT).await;
            if let Ok(true) = started {
                return Ok(cluster);
            }
        }
        started.and(Err(cluster.failed("the server did not start")))
    }

    /// Starts the server if it does not run; a killed one's children may be in the way for a while.
    pub(crate) async fn start_again(&mut self) -> Result<(), Error> {
        // An earlier call may have been dropped half-way.
        self.guardian.wait(LIMIT, |n| n != News::Ordered).await;
        // It may be dying of a signal that is not ours.
        if let Some(pid) = self.pid()
            && !(self.is_ready(pid) && self.is_reachable().await)
        {
            self.kill(Signal::KILL).await?;
        }
        let deadline = Instant::now() + LIMIT;
        while self.pid().is_none() {
            if self.attempt(deadline).await? {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.failed("the server did not start again"));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// One start: `false` if the postmaster gave up.
    async fn attempt(&mut self, deadline: Instant) -> Result<bool, Error> {
        self.guardian.order(&format!("start {}", self.port))?;
        let told = |n| matches!(n, News::Running(_) | News::Ended(_));
        self.guardian.wait(LIMIT, told).await;
        loop {
            match self.guardian.news() {
                News::Running(pid) if self.is_ready(pid) => return Ok(true),
                News::Running(_) if Instant::now() < deadline => sleep(POLL).await,
                News::Ended(_) => return Ok(false),
                News::Running(_) | News::Ordered | News::Initialised(_) | News::Gone => {
                    return Err(self.failed("the server did not become ready"));
                }
            }
        }
    }

    /// What `pg_ctl` looks at: the postmaster itself writes down that it takes connections.
    fn is_ready(&self, pid: i32) -> bool {
        let status = fs::read_to_string(self.directory.join("data/postmaster.pid"));
        let status = status.unwrap_or_default();
        let mut lines = status.lines();
        lines.next().and_then(|line| line.trim().parse().ok()) == Some(pid)
            && lines.nth(6).is_some_and(|line| line.trim() == "ready")
    }

    /// Sends the postmaster a signal and waits until it is gone and its port is dead.
    pub(crate) async fn kill(&mut self, signal: Signal) -> Result<(), Error> {
        if let Some(pid) = self.pid().and_then(Pid::from_raw) {
            match kill_process(pid, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(Error::io("signal the server")(error.into())),
            }
            let ended = self.guardian.wait(LIMIT, |n| matches!(n, News::Ended(_))).await;
            if ended.is_none() {
                return Err(self.failed("the server did not end"));
            }
        }
        let deadline = Instant::now() + LIMIT;
        while self.is_reachable().await {
            if Instant::now() > deadline {
                return Err(self.failed("the server's port outlives it"));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    async fn is_reachable(&self) -> bool {
        match TcpStream::connect(("127.0.0.1", self.port)).await {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::ConnectionRefused,
        }
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        match self.guardian.news() {
            News::Running(pid) => Some(pid),
            News::Ordered | News::Initialised(_) | News::Ended(_) | News::Gone => None,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn failed(&self, what: &str) -> Error {
        let log = fs::read(self.directory.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        let log = lines[lines.len().saturating_sub(30)..].join("\n");
        Error::Server { what: format!("{what} ({})", self.directory.display()), log }
    }
}

/// A port below those that the system gives to outgoing connections.
///
/// One of those could be given away while the server is down: to a client that dials this very
/// port, which then talks to itself and keeps the server from coming back.
fn free_port() -> Result<u16, Error> {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    let start = std::process::id().wrapping_mul(7919).wrapping_add(unique_number());
    (0..COUNT)
        .filter_map(|n| u16::try_from(FIRST + start.wrapping_add(n) % COUNT).ok())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| Error::io("find a free port")(ErrorKind::AddrInUse.into()))
}

/// Differs from call to call, so that two servers of a process do not race for a port.
fn unique_number() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(101, Ordering::Relaxed)
}
