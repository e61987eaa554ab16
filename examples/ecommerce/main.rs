//! A shop whose orders survive crashes: `cargo run --example ecommerce`.
//!
//! An order is a workflow of five steps (`config/order_processing.yaml`). The web side stores it
//! and answers at once; the worker side carries it through time-outs, refusals and power cuts.
//! Start reading at [`handlers`], then [`http`], then here.

mod arguments;
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
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tasker::{SqliteStore, StateStore, TaskTemplate, Tasker, TemplateError};
use tasker_postgres::PostgresStore;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use arguments::{Args, Place};
use database::Database;
use gateway::Gateway;
use handlers::Shop;
use inventory::Inventory;
use mailer::Mailer;
use orders::Orders;

/// How long running steps may go on after the first Ctrl-C.
const GRACE: Duration = Duration::from_secs(10);

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
    let place = args.place()?;
    let listener = match args.role.has_web() {
        true => Some(listen(SocketAddr::new(args.host, args.port)).await?),
        false => None,
    };
    let closing = close_on_signal()?;

    std::fs::create_dir_all(&args.data_dir)
        .map_err(|error| format!("cannot make {}: {error}", args.data_dir.display()))?;
    let store: Arc<dyn StateStore> = match &place {
        Place::File(file) => Arc::new(SqliteStore::open(file).await?),
        Place::Postgres(url) => Arc::new(PostgresStore::open(url).await?),
    };
    let shop = open_shop(&args, &place).await.map_err(|error| {
        let tables = match place {
            Place::File(_) => "",
            Place::Postgres(_) => "schema `shop` of the database and ",
        };
        format!("cannot open the shop in {tables}{}: {error}", args.data_dir.display())
    })?;
    let workflow = handlers::process_order(template, &shop);
    let tasker = Tasker::builder_on(store).register(workflow).escalate_to(console::escalations());
    #[cfg(feature = "webhook")]
    let tasker = match args.webhook()? {
        Some(webhook) => tasker.escalate_to(webhook),
        None => tasker,
    };
    let tasker = tasker.build()?;

    let narrator = tokio::spawn(console::narrate(tasker.events()));
    let lease = Duration::from_millis(args.lease);
    let worker = args.role.has_worker().then(|| tasker.worker().lease(lease).start());
    let web = http::Web::new(tasker, shop, closing.clone());
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
async fn open_shop(args: &Args, place: &Place) -> Result<Shop, Box<dyn Error>> {
    let tables = [inventory::TABLES, orders::TABLES, mailer::TABLES];
    let database = match place {
        Place::File(_) => Database::in_file(&args.data_dir.join("shop.db"), &tables).await?,
        Place::Postgres(url) => Database::on_postgres(url, &tables).await?,
    };
    let latency = Duration::from_millis(args.gateway_latency);
    let sender = "The shop <orders@shop.example>".parse()?;
    let mailer = match &args.smtp_url {
        Some(url) => Mailer::to_server(database.clone(), sender, url)
            // The error would repeat the address, which has a password in it.
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
