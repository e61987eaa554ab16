//! What the processes of a server have used, if it runs on this machine.

use std::time::Duration;

use sqlx::{PgConnection, Row};

use crate::{Failed, usage};

/// The server's processes, by the one that starts and buries all the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerProcesses {
    postmaster: u32,
}

impl ServerProcesses {
    /// `None` if the server runs elsewhere.
    pub(crate) async fn find(
        postmaster: Option<u32>,
        connection: &mut PgConnection,
    ) -> Result<Option<Self>, Failed> {
        if let Some(postmaster) = postmaster {
            return Ok(Some(Self { postmaster }));
        }
        let asked = sqlx::query("SELECT pg_backend_pid()").fetch_one(connection).await?;
        // A process of that number is the session's only if it is a server's.
        let is_server = |process: &usage::Process| process.name.starts_with("postgres");
        let session = usage::process(&asked.get::<i32, _>(0).to_string()).filter(is_server);
        Ok(session.map(|session| Self { postmaster: session.parent }))
    }

    /// User and system time of all of them so far, and of those that have ended.
    pub(crate) fn cpu_time(self) -> Option<Duration> {
        let postmaster = usage::process(&self.postmaster.to_string())?;
        let mut cpu = postmaster.cpu + postmaster.ended_children_cpu;
        for entry in std::fs::read_dir("/proc").ok()? {
            let name = entry.ok()?.file_name();
            let process =
                name.to_str().filter(|name| name.starts_with(|c: char| c.is_ascii_digit()));
            // One that has just ended is counted with the postmaster, now or the next time.
            if let Some(process) = process.and_then(usage::process)
                && process.parent == self.postmaster
            {
                cpu += process.cpu + process.ended_children_cpu;
            }
        }
        Some(cpu)
    }
}
