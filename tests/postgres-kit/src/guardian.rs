//! The shell between us and PostgreSQL, which outlives us just long enough to clear up.
//!
//! It is a process of its own because nothing that we could do in ours survives SIGKILL. Here is
//! our end of its two pipes; what it does is in `guardian.sh`.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use crate::{Error, account::Account};

/// What the guardian last told, or what it was last told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// An order was given and is not yet answered.
    Ordered,
    /// `initdb` ended with this exit status.
    Initialised(i32),
    /// The postmaster has this process id; whether it takes connections is another question.
    Running(i32),
    /// The postmaster ended with this exit status and has been waited for.
    Ended(i32),
    /// The guardian is gone.
    Gone,
}

/// Dropping it stops the server and removes its directory, in the background.
pub(crate) struct Guardian {
    orders: ChildStdin,
    news: watch::Sender<News>,
}

impl Guardian {
    /// Starts a guardian of `directory`; `parameters` go to every `postgres` that it runs.
    pub(crate) fn of(
        directory: &Path,
        binaries: &Path,
        parameters: &[String],
    ) -> Result<Self, Error> {
        let mut command = Command::new("sh");
        command
            .args(["-c", include_str!("guardian.sh"), "guardian"])
            .args([directory, binaries])
            .args(parameters)
            // The server must not depend on the language of whoever runs the tests.
            .env("LC_ALL", "C")
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Not ours: whoever reads the output of the tests would wait for its end.
            .stderr(Stdio::null())
            // Ctrl-C ends the tests; the guardian notices by itself and must not be interrupted.
            .process_group(0);
        if let Some(account) = Account::to_lend()? {
            account.own(directory)?;
            account.run(&mut command);
        }
        let mut shell = command.spawn().map_err(Error::io("run `sh`"))?;
        let (Some(orders), Some(output)) = (shell.stdin.take(), shell.stdout.take()) else {
            return Err(Error::io("run `sh`")(std::io::ErrorKind::BrokenPipe.into()));
        };
        let news = watch::Sender::new(News::Ordered);
        let told = news.clone();
        // A thread, not a task: a server is shared by tests with a runtime each.
        thread::Builder::new()
            .name("postgres-guardian".into())
            .spawn(move || listen(BufReader::new(output), &told, shell))
            .map_err(Error::io("start a thread"))?;
        Ok(Self { orders, news })
    }

    pub(crate) fn order(&mut self, order: &str) -> Result<(), Error> {
        self.news.send_replace(News::Ordered);
        writeln!(self.orders, "{order}").map_err(Error::io("reach the guardian of the server"))
    }

    pub(crate) fn news(&self) -> News {
        *self.news.borrow()
    }

    /// The first news that are `awaited`, or `None` after `limit` or with the guardian's end.
    pub(crate) async fn wait(
        &self,
        limit: Duration,
        awaited: impl Fn(News) -> bool,
    ) -> Option<News> {
        let mut news = self.news.subscribe();
        let found = timeout(limit, news.wait_for(|n| awaited(*n) || *n == News::Gone)).await;
        found.ok()?.ok().map(|n| *n).filter(|n| *n != News::Gone)
    }
}

fn listen(output: impl BufRead, news: &watch::Sender<News>, mut shell: Child) {
    for line in output.lines().map_while(Result::ok) {
        let Some((what, number)) = line.split_once(' ') else { continue };
        let Ok(number) = number.parse() else { continue };
        match what {
            "initialised" => news.send_replace(News::Initialised(number)),
            "running" => news.send_replace(News::Running(number)),
            "ended" => news.send_replace(News::Ended(number)),
            _ => continue,
        };
    }
    news.send_replace(News::Gone);
    // Nothing to conclude from its exit status; without this it would stay a zombie.
    let _ = shell.wait();
}
