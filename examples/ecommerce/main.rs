//! A shop whose orders survive crashes: `cargo run --example ecommerce`.
//!
//! An order is a workflow of five steps (`config/order_processing.yaml`). The web side stores it
//! and answers at once; the worker side carries it through time-outs, refusals and power cuts.
//! Start reading at [`handlers`], then [`http`], then here.

mod catalogue;
mod checkout;
mod console;
mod database;
mod gateway;
mod handlers;
mod http;
mod inventory;
mod mailer;
mod money;
mod orders;

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tasker::{TaskTemplate, Tasker, TemplateError};
use tasker_sqlite::SqliteStore;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use gateway::Gateway;
use handlers::Shop;
use inventory::Inventory;
use mailer::Mailer;
use orders::Orders;

/// How long running steps may go on after the first Ctrl-C.
const GRACE: Duration = Duration::from_secs(10);
const WORKFLOW: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/examples/ecommerce/config/order_processing.yaml");

/// A shop whose orders survive crashes.
#[derive(Debug, Parser)]
struct Args {
    /// Take orders, work on them, or both
    #[arg(long, value_enum, default_value_t = Role::All)]
    role: Role,
    /// The port of the shop; 0 takes any that is free
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// The address that the shop listens on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Where the workflows are kept, such as sqlite://orders.db [default: a file in the data folder]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Where everything else is kept: stock, orders, the gateway's ledger, the mailbox
    #[arg(long, default_value = "./data")]
    data_dir: PathBuf,
    /// The workflow of an order
    #[arg(long, value_name = "FILE", default_value = WORKFLOW)]
    workflow: PathBuf,
    /// Send mail through a server, such as smtps://user:password@mail.example.com [default: files]
    #[arg(long, env = "SMTP_URL", hide_env_values = true)]
    smtp_url: Option<String>,
    /// How long the simulated gateway takes for an answer
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 150)]
    gateway_latency: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    Web,
    Worker,
    All,
}

impl Role {
    fn has_web(self) -> bool {
        matches!(self, Self::Web | Self::All)
    }

    fn has_worker(self) -> bool {
        matches!(self, Self::Worker | Self::All)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    console::start_log();
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A broken workflow file names file, line and column of every fault, one a line.
            let prefix = if error.is::<TemplateError>() { "" } else { "error: " };
            eprintln!("{prefix}{}", console::with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    // First what a person may have mistyped: nothing has been touched when it is refused.
    let template = TaskTemplate::from_yaml_file(&args.workflow)?;
    template.warnings().iter().for_each(|warning| warn!("{warning}"));
    let store_file = store_file(args.database_url.as_deref(), &args.data_dir)?;
    let listener = match args.role.has_web() {
        true => Some(listen(SocketAddr::new(args.host, args.port)).await?),
        false => None,
    };
    let closing = close_on_signal()?;

    std::fs::create_dir_all(&args.data_dir)
        .map_err(|error| format!("cannot make {}: {error}", args.data_dir.display()))?;
    let shop = open_shop(&args).await?;
    let store = SqliteStore::open(&store_file).await?;
    let workflow = handlers::process_order(template, &shop);
    let tasker = Tasker::builder(store).register(workflow).build()?;

    let narrator = tokio::spawn(console::narrate(tasker.events()));
    let worker = args.role.has_worker().then(|| tasker.worker().start());
    let web = http::Web::new(tasker, shop.inventory, shop.orders, closing.clone());
    let taking_orders = async {
        match listener {
            Some(listener) => serve(listener, web, &closing).await,
            None => {
                info!("working on orders");
                closing.cancelled().await;
                Ok(())
            }
        }
    };
    let working = async {
        closing.cancelled().await;
        if let Some(worker) = worker {
            worker.shutdown(GRACE).await;
        }
        Ok(())
    };
    tokio::try_join!(taking_orders, working)?;
    narrator.abort();
    info!("the shop is closed");
    Ok(())
}

/// Answers requests until the shop closes, and those that are under way for a little longer.
async fn serve(
    listener: TcpListener,
    web: http::Web,
    closing: &CancellationToken,
) -> std::io::Result<()> {
    console::welcome(listener.local_addr()?);
    let serving = axum::serve(listener, http::routes(web))
        .with_graceful_shutdown(closing.clone().cancelled_owned());
    let late = async {
        closing.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => served,
        () = late => {
            warn!("some requests took too long and were cut off");
            Ok(())
        }
    }
}

/// The databases of everybody whom the steps of an order talk to.
async fn open_shop(args: &Args) -> Result<Shop, Box<dyn Error>> {
    let tables = [inventory::TABLES, orders::TABLES, mailer::TABLES];
    let database = database::open(&args.data_dir.join("shop.db"), &tables).await?;
    let latency = Duration::from_millis(args.gateway_latency);
    let sender = "The shop <orders@shop.example>".parse()?;
    let mailer = match &args.smtp_url {
        Some(url) => Mailer::to_server(database.clone(), sender, url)
            .map_err(|_| "--smtp-url is not an address such as smtps://user:password@host")?,
        None => Mailer::to_folder(database.clone(), sender, &args.data_dir.join("mailbox")),
    };
    Ok(Shop {
        gateway: Gateway::open(&args.data_dir.join("gateway.db"), latency).await?,
        inventory: Inventory::open(database.clone()).await?,
        orders: Orders::new(database),
        mailer,
    })
}

fn store_file(url: Option<&str>, data_dir: &Path) -> Result<PathBuf, String> {
    match url.map(|url| (url, url.strip_prefix("sqlite:"))) {
        None => Ok(data_dir.join("tasker.db")),
        Some((_, Some(path))) => Ok(path.strip_prefix("//").unwrap_or(path).into()),
        Some((url, None)) if url.starts_with("postgres:") || url.starts_with("postgresql:") => {
            Err("a PostgreSQL store comes with the `postgres` feature, which this build does not \
                 have; use sqlite://path"
                .into())
        }
        Some(_) => Err("--database-url must be sqlite://path".into()),
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("port {} is in use; choose another one with --port", address.port())
        }
        _ => format!("cannot listen on {address}: {error}"),
    })
}

/// Cancelled by the first Ctrl-C or SIGTERM; the second one ends the process on the spot.
fn close_on_signal() -> std::io::Result<CancellationToken> {
    let closing = CancellationToken::new();
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let first = closing.clone();
    tokio::spawn(async move {
        for is_first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if is_first {
                info!("closing the shop: running steps may finish; once more leaves at once");
                first.cancel();
            } else {
                // Nothing is lost by that: the next start takes the steps up again.
                std::process::exit(130);
            }
        }
    });
    Ok(closing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_database_url_names_a_file_or_what_is_missing() {
        let data = Path::new("data");
        assert_eq!(store_file(None, data), Ok("data/tasker.db".into()));
        for (url, file) in
            [("sqlite://a.db", "a.db"), ("sqlite:///b/a.db", "/b/a.db"), ("sqlite:a.db", "a.db")]
        {
            assert_eq!(store_file(Some(url), data), Ok(file.into()), "{url}");
        }
        for url in ["postgres://localhost/shop", "postgresql://localhost/shop"] {
            let refused = store_file(Some(url), data);
            assert!(refused.as_ref().is_err_and(|why| why.contains("postgres")), "{refused:?}");
        }
        assert!(store_file(Some("mysql://localhost"), data).is_err());
    }
}
