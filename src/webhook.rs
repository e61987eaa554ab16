//! Escalations posted to a URL, signed so that the receiver knows who sent them.
//!
//! [`Webhook`] is the sending side, [`Verifier`] the receiving one. The page
//! `docs/guide/escalations.md` has the format for receivers that are not written in Rust.

mod signature;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::http::uri::Scheme;
use hyper::{Request, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tasker_core::{Escalation, EscalationSink, SinkError, async_trait};

use self::signature::Secret;
pub use self::signature::{Unverified, Verifier};

/// The header with the key of the escalation: the same for every delivery of it.
pub const DELIVERY: &str = "tasker-delivery";
/// The header with the time of sending, in seconds since 1970.
pub const TIMESTAMP: &str = "tasker-timestamp";
/// The header with the signature, written `t=TIMESTAMP,v1=HEX`.
pub const SIGNATURE: &str = "tasker-signature";

/// A sink that posts each escalation as JSON to a URL.
///
/// An answer of 2xx is a delivery; any other, a redirect included, is a failure, and so is none
/// within ten seconds. Neither the secret nor the URL's path and query appear in an error, in
/// [`Debug`](fmt::Debug) or in a log.
///
/// ```
/// use std::time::Duration;
///
/// use tasker::webhook::Webhook;
/// use tasker::{MemoryStore, Tasker};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let secret = "from the environment, and long";
/// let pager = Webhook::new("http://pager.internal/tasker", secret)?
///     .name("pager")
///     .timeout(Duration::from_secs(5));
/// let tasker = Tasker::builder(MemoryStore::new()).escalate_to(pager).build()?;
/// # let _ = tasker;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct Webhook {
    name: String,
    url: Uri,
    secret: Secret,
    timeout: Duration,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// A webhook that cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// The URL is not one of `http` or `https` with a host.
    #[error("a webhook needs an absolute URL of http or https")]
    InvalidUrl,
    /// The URL has a user or a password in it, which would not be sent.
    #[error("a webhook's URL must have no user and no password in it: deliveries are signed")]
    UserInUrl,
    /// There is no secret to sign with.
    #[error("a webhook needs a secret to sign with")]
    NoSecret,
    /// The system's root certificates, or what is to be done with them, cannot be used.
    #[error("https cannot be set up")]
    Tls(#[source] Box<dyn Error + Send + Sync>),
}

impl Webhook {
    /// A webhook that posts to a URL and signs with a secret; it is called `webhook`.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub fn new(url: &str, secret: impl AsRef<[u8]>) -> Result<Self, WebhookError> {
        let url: Uri = url.parse().map_err(|_| WebhookError::InvalidUrl)?;
        let (scheme, authority) = (url.scheme(), url.authority());
        let (Some(scheme), Some(authority)) = (scheme, authority) else {
            return Err(WebhookError::InvalidUrl);
        };
        if authority.as_str().contains('@') {
            return Err(WebhookError::UserInUrl);
        }
        let https = *scheme == Scheme::HTTPS;
        if !https && *scheme != Scheme::HTTP {
            return Err(WebhookError::InvalidUrl);
        }
        let secret = Secret::new(secret.as_ref()).ok_or(WebhookError::NoSecret)?;
        // Escalations are rare: no connection is worth keeping.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector(https).map_err(WebhookError::Tls)?);
        let (name, timeout) = ("webhook".to_owned(), Duration::from_secs(10));
        Ok(Self { name, url, secret, timeout, client })
    }

    /// What the sink is called; of several webhooks each needs a name of its own.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How long a delivery may take, from connecting to the answer; ten seconds by default, and 30
    /// at most.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn host(&self) -> &str {
        self.url.host().unwrap_or_default()
    }

    fn request(&self, escalation: &Escalation) -> Result<Request<Full<Bytes>>, SinkError> {
        let body = serde_json::to_vec(escalation).map_err(SinkError::new)?;
        // The receiver's clock is what it is compared with, not the store's.
        let now = Timestamp::now().as_second();
        Request::post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("tasker/", env!("CARGO_PKG_VERSION")))
            .header(DELIVERY, &escalation.key)
            .header(TIMESTAMP, now)
            .header(SIGNATURE, self.secret.sign(now, &body))
            .body(Full::from(body))
            .map_err(|_| SinkError::new("the request cannot be made"))
    }
}

/// TLS from this process's own parts, whatever else has been set up in it.
fn connector(https: bool) -> Result<HttpsConnector<HttpConnector>, Box<dyn Error + Send + Sync>> {
    let provider = ring::default_provider();
    let builder = HttpsConnectorBuilder::new();
    let builder = if https {
        builder.with_provider_and_native_roots(provider)?.https_only()
    } else {
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        builder.with_tls_config(config).https_or_http()
    };
    Ok(builder.enable_http1().build())
}

#[async_trait]
impl EscalationSink for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&self, escalation: &Escalation) -> Result<(), SinkError> {
        let answer = self.client.request(self.request(escalation)?);
        let answer = tokio::time::timeout(self.timeout, answer).await;
        let host = self.host();
        match answer {
            Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
            Ok(Ok(answer)) => {
                Err(SinkError::new(format!("{host} answered {}", answer.status().as_u16())))
            }
            Ok(Err(error)) => {
                let what = if error.is_connect() { "cannot be reached" } else { "did not answer" };
                Err(SinkError::new(format!("{host} {what}: {}", innermost(&error))))
            }
            Err(_) => Err(SinkError::new(format!("{host} did not answer in time"))),
        }
    }
}

/// What an error goes back to: the system's or the peer's doing, without a URL.
fn innermost(error: &dyn Error) -> &dyn Error {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, timeout, .. } = self;
        let mut fields = f.debug_struct("Webhook");
        fields.field("name", name).field("host", &self.host()).field("timeout", timeout);
        fields.finish_non_exhaustive()
    }
}
