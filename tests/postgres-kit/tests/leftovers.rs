//! However the process ends that started a server: nothing is left of the server.

#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tasker_postgres_kit::{Server, Settings};
use tokio::time::{sleep, timeout};

/// A process that started a server.
fn process() -> (Child, Pid, PathBuf) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_tasker-postgres-kit"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    let pid = lines.nth(1).unwrap().parse().unwrap();
    (process, Pid::from_raw(pid).unwrap(), lines.next().unwrap().into())
}

async fn nothing_is_left(pid: Pid, directory: &Path) {
    until(|| test_kill_process(pid).is_err() && !directory.exists()).await;
}

#[tokio::test]
async fn nothing_is_left_of_the_server_of_a_killed_process() {
    let (mut process, pid, directory) = process();
    assert!(test_kill_process(pid).is_ok() && directory.exists());
    process.kill().unwrap();
    process.wait().unwrap();
    nothing_is_left(pid, &directory).await;
}

#[tokio::test]
async fn nothing_is_left_of_the_server_of_a_process_that_exits() {
    let (mut process, pid, directory) = process();
    drop(process.stdin.take());
    assert!(process.wait().unwrap().success());
    nothing_is_left(pid, &directory).await;
}

/// The directories of servers that the process `pid` started.
fn directories(pid: u32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap().map(|entry| entry.unwrap());
    let names = entries.map(|entry| (entry.file_name().into_string().unwrap_or_default(), entry));
    let of_pid = format!("_{pid:x}_");
    names
        .filter(|(name, _)| name.starts_with("tasker_test_") && name.contains(&of_pid))
        .map(|(_, entry)| entry.path())
        .collect()
}

async fn until(condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(Duration::from_secs(60), met).await.is_ok());
}

/// At every stage of a start: the guardian finds out only when it has done what it is about.
#[tokio::test]
async fn nothing_is_left_of_the_server_of_a_process_that_is_killed_during_its_start() {
    for stage in ["log", "data/base", "pid", "data/postmaster.pid"] {
        let mut process = Command::new(env!("CARGO_BIN_EXE_tasker-postgres-kit"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        until(|| directories(process.id()).iter().any(|found| found.join(stage).exists())).await;
        process.kill().unwrap();
        process.wait().unwrap();
        until(|| directories(process.id()).is_empty()).await;
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_server_whose_start_was_given_up() {
    let starting = Server::start(Settings::default());
    assert!(timeout(Duration::from_millis(1), starting).await.is_err());
    until(|| directories(std::process::id()).is_empty()).await;
}

#[tokio::test]
async fn nothing_is_left_of_a_server_that_crashed_and_was_dropped() {
    let mut server = Server::start(Settings::default()).await.unwrap();
    let pid = Pid::from_raw(server.pid().unwrap()).unwrap();
    let directory = server.directory().unwrap().to_owned();
    kill_process(pid, Signal::KILL).unwrap();
    server.crash().await.unwrap();
    drop(server);
    nothing_is_left(pid, &directory).await;
}
