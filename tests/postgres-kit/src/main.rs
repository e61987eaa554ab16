//! A throw-away PostgreSQL, for as long as somebody holds its standard input open.
//!
//! Prints its URL, the postmaster's process id and its directory, a line each. By hand:
//! `cargo run -p tasker-postgres-kit`, and Ctrl-D to be rid of it.

use std::io::{Write, stdin, stdout};

use tasker_postgres_kit::{Error, Server, Settings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let server = Server::start(Settings::default()).await?;
    let url = server.url("postgres");
    let pid = server.pid().unwrap_or_default();
    let directory = server.directory().unwrap_or("".as_ref()).display();
    let told = writeln!(stdout(), "{url}\n{pid}\n{directory}").and_then(|()| stdout().flush());
    // Whoever reads it is gone, or wants no more: the end in either case.
    let _ = told.and_then(|()| stdin().read_line(&mut String::new()));
    // Without dropping the server, as a process with a static one does.
    std::process::exit(0);
}
