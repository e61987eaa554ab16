//! Workers in processes of their own: this program again, told to be one of them.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::place::{self, Home};
use crate::args::Args;
use crate::counting::{CountingStore, Counts};
use crate::{Failed, shape, usage};

/// How often a process tells what it counted.
const TELLS: Duration = Duration::from_millis(5);

/// Worker processes that share the slots.
pub(crate) struct Processes {
    children: Vec<(Child, JoinHandle<Result<(), Failed>>)>,
}

impl Processes {
    /// Starts them; what they count is added to `store`.
    pub(crate) async fn start(
        args: &Args,
        home: &Home,
        store: Arc<CountingStore>,
    ) -> Result<Self, Failed> {
        let count = args.postgres.workers;
        let mut children = Vec::with_capacity(count);
        for number in 0..count {
            let slots = args.slots / count + usize::from(number < args.slots % count);
            let mut child = Command::new(std::env::current_exe()?)
                .args(["--store", "postgres", "--shape", args.shape.name()])
                .args(["--slots", &slots.to_string()])
                .args(["--connections", &args.postgres.connections.to_string()])
                .args(["--worker-in", home.schema.name()])
                .env("DATABASE_URL", &home.url)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            let told = child.stdout.take().ok_or("a worker without an output")?;
            let mut told = BufReader::new(told).lines();
            // The first line says that it is ready.
            let first = told.next_line().await?.ok_or("a worker ended at once")?;
            let mut before: Counts = serde_json::from_str(&first)?;
            let store = store.clone();
            let listener = tokio::spawn(async move {
                while let Some(line) = told.next_line().await? {
                    let now: Counts = serde_json::from_str(&line)?;
                    store.add(&now.since(&before));
                    before = now;
                }
                Ok(())
            });
            children.push((child, listener));
        }
        Ok(Self { children })
    }

    /// User and system time of all of them so far.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        let one = |child: &Child| Some(usage::process(&child.id()?.to_string())?.cpu);
        self.children.iter().map(|(child, _)| one(child)).sum()
    }

    /// Stops them, and fails if one has failed.
    pub(crate) async fn stop(self) -> Result<(), Failed> {
        for (mut child, listener) in self.children {
            drop(child.stdin.take());
            listener.await??;
            let status = child.wait().await?;
            if !status.success() {
                return Err(format!("a worker process ended with {status}").into());
            }
        }
        Ok(())
    }
}

/// Is one of them, until its input is closed.
pub(crate) async fn run(args: &Args, schema: &str) -> Result<(), Failed> {
    let url = args.postgres.url.as_deref().ok_or("a worker needs a URL")?;
    let opened = Arc::new(place::open(url, schema, args.postgres.connections).await?);
    let store = Arc::new(CountingStore::new(opened.clone()));
    let tasker = shape::tasker(store.clone(), &[args.shape])?;
    let worker = tasker.worker().slots(args.slots).start();
    let mut told = tell(&store.counts())?;
    let mut input = tokio::io::stdin();
    let mut nothing = [0; 1];
    let closed = input.read(&mut nothing);
    tokio::pin!(closed);
    loop {
        tokio::select! {
            read = &mut closed => {
                read?;
                break;
            }
            () = tokio::time::sleep(TELLS) => {}
        }
        if store.counts() != told {
            told = tell(&store.counts())?;
        }
    }
    worker.shutdown(Duration::from_secs(10)).await;
    tell(&store.counts())?;
    opened.close().await;
    Ok(())
}

fn tell(counts: &Counts) -> Result<Counts, Failed> {
    println!("{}", serde_json::to_string(counts)?);
    Ok(*counts)
}
