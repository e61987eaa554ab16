//! What the shop is told on its command line.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
#[cfg(feature = "webhook")]
use tasker::webhook::{Webhook, WebhookError};

const WORKFLOW: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/examples/ecommerce/config/order_processing.yaml");

/// A shop whose orders survive crashes.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Take orders, work on them, or both
    #[arg(long, value_enum, default_value_t = Role::All)]
    pub(crate) role: Role,
    /// The port of the shop; 0 takes any that is free
    #[arg(long, default_value_t = 3000)]
    pub(crate) port: u16,
    /// The address that the shop listens on
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// Where the workflows are kept, such as sqlite://orders.db or postgres://user@host/shop, and
    /// there the stock and the orders too [default: a file in the data folder]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: Option<String>,
    /// Where everything else is kept: the gateway's ledger, the mailbox, without PostgreSQL also
    /// stock and orders
    #[arg(long, default_value = "./data")]
    pub(crate) data_dir: PathBuf,
    /// The workflow of an order [default: config/order_processing.yaml beside the source]
    #[arg(long, value_name = "FILE", default_value = WORKFLOW, hide_default_value = true)]
    pub(crate) workflow: PathBuf,
    /// Send mail through a server, such as smtps://user:password@mail.example.com [default: files]
    #[arg(long, env = "SMTP_URL", hide_env_values = true)]
    pub(crate) smtp_url: Option<String>,
    /// How long the simulated gateway takes for an answer
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 150)]
    pub(crate) gateway_latency: u64,
    /// How long the orders of a worker that crashed wait until another one takes them over
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 5_000, value_parser = lease)]
    pub(crate) lease: u64,
    /// Post what needs a person to this address too, signed with the secret
    #[cfg(feature = "webhook")]
    #[arg(long, value_name = "URL", requires = "escalation_secret")]
    pub(crate) escalation_webhook: Option<String>,
    /// What the posts are signed with; in the environment nobody sees it in a list of processes
    #[cfg(feature = "webhook")]
    #[arg(long, value_name = "SECRET", env = "ESCALATION_SECRET", hide_env_values = true)]
    pub(crate) escalation_secret: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Web,
    Worker,
    All,
}

impl Role {
    pub(crate) fn has_web(self) -> bool {
        matches!(self, Self::Web | Self::All)
    }

    pub(crate) fn has_worker(self) -> bool {
        matches!(self, Self::Worker | Self::All)
    }
}

impl Args {
    /// Where the workflows are kept.
    ///
    /// # Errors
    /// Says what is wrong with `--database-url`.
    pub(crate) fn place(&self) -> Result<Place, String> {
        place(self.database_url.as_deref(), &self.data_dir)
    }

    /// Who else is told of what needs a person.
    ///
    /// # Errors
    /// Says what is wrong with `--escalation-webhook`.
    #[cfg(feature = "webhook")]
    pub(crate) fn webhook(&self) -> Result<Option<Webhook>, WebhookError> {
        let secret = self.escalation_secret.as_deref().unwrap_or_default();
        self.escalation_webhook.as_deref().map(|url| Webhook::new(url, secret)).transpose()
    }
}

/// A place for the workflows.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A SQLite file.
    File(PathBuf),
    /// The URL of a PostgreSQL database.
    Postgres(String),
}

/// Shorter ones take a short absence of the disk for a death.
fn lease(text: &str) -> Result<u64, String> {
    const SENSIBLE: RangeInclusive<u64> = 500..=86_400_000;
    text.parse().ok().filter(|millis| SENSIBLE.contains(millis)).ok_or_else(|| {
        format!("must be from {} to {} milliseconds", SENSIBLE.start(), SENSIBLE.end())
    })
}

fn place(url: Option<&str>, data_dir: &Path) -> Result<Place, String> {
    match url.map(|url| (url, url.strip_prefix("sqlite:"))) {
        None => Ok(Place::File(data_dir.join("tasker.db"))),
        Some((_, Some(path))) => Ok(Place::File(path.strip_prefix("//").unwrap_or(path).into())),
        Some((url, None)) if url.starts_with("postgres:") || url.starts_with("postgresql:") => {
            Ok(Place::Postgres(url.to_owned()))
        }
        // It may have a password in it, so it is not repeated.
        Some(_) => Err("--database-url must be sqlite://path or \
                        postgres://user:password@host:port/database"
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_database_url_names_a_file_or_a_server() {
        let data = Path::new("data");
        assert!(place(None, data) == Ok(Place::File("data/tasker.db".into())));
        for (url, file) in
            [("sqlite://a.db", "a.db"), ("sqlite:///b/a.db", "/b/a.db"), ("sqlite:a.db", "a.db")]
        {
            assert!(place(Some(url), data) == Ok(Place::File(file.into())), "{url}");
        }
        for url in ["postgres://localhost/shop", "postgresql://localhost/shop"] {
            assert!(place(Some(url), data) == Ok(Place::Postgres(url.into())), "{url}");
        }
        let refused = place(Some("mysql://user:secret@localhost"), data);
        assert!(refused.is_err_and(|why| !why.contains("secret")));
    }

    #[test]
    fn a_lease_that_no_worker_could_keep_is_refused() {
        assert_eq!((lease("500"), lease("5000")), (Ok(500), Ok(5000)));
        for text in ["0", "499", "-1", "5s", "", "86400001", "18446744073709551615"] {
            assert!(lease(text).is_err_and(|why| why.contains("from 500")), "{text}");
        }
    }
}
