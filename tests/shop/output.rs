//! What a process prints, line by line, as it prints it.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[derive(Default)]
struct Printed {
    lines: Mutex<(Vec<String>, usize)>,
    more: Condvar,
}

/// Standard output and standard error of a process, in the order in which they arrived.
pub(crate) struct Output {
    printed: Arc<Printed>,
    readers: Vec<JoinHandle<()>>,
}

impl Output {
    /// Starts reading what a child prints.
    pub(crate) fn of(child: &mut Child) -> Self {
        let printed = Arc::new(Printed::default());
        let out = read(child.stdout.take().unwrap(), &printed);
        let err = read(child.stderr.take().unwrap(), &printed);
        Self { printed, readers: vec![out, err] }
    }

    /// The first line that is as wished, printed already or soon; `None` at the end of it all.
    pub(crate) fn wait_for_line(
        &self,
        at_most: Duration,
        wished: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let until = Instant::now() + at_most;
        let mut seen = 0;
        let mut printed = self.printed.lines.lock().unwrap();
        loop {
            let (lines, closed) = &*printed;
            if let Some(line) = lines[seen..].iter().find(|line| wished(line)) {
                return Some(line.clone());
            }
            seen = lines.len();
            let left = until.saturating_duration_since(Instant::now());
            if *closed == 2 || left.is_zero() {
                return None;
            }
            printed = self.printed.more.wait_timeout(printed, left).unwrap().0;
        }
    }

    /// All lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.printed.lines.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Waits until the process, which has ended, has nothing more to say.
    pub(crate) fn wait_for_end(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

fn read(from: impl Read + Send + 'static, printed: &Arc<Printed>) -> JoinHandle<()> {
    let printed = printed.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            printed.lines.lock().unwrap().0.push(line);
            printed.more.notify_all();
        }
        printed.lines.lock().unwrap().1 += 1;
        printed.more.notify_all();
    })
}
