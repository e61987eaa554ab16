//! What the shop says on the terminal: a banner, and a line for everything that happens to an
//! order.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

use tasker::escalation::{EscalationState, sink_fn};
use tasker::history::{Failure, FailureClass};
use tasker::{Escalation, EscalationSink, Event, EventKind, Incident, SinkError};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tracing::{debug, error, info, warn};
use tracing_subscriber::EnvFilter;

/// Starts the log; `RUST_LOG` chooses what is in it.
pub(crate) fn start_log() {
    let wanted = std::env::var_os("RUST_LOG").filter(|wanted| !wanted.is_empty());
    let read = wanted.map(|wanted| EnvFilter::try_new(wanted.to_string_lossy()));
    let (filter, fault) = match read {
        Some(Ok(filter)) => (filter, None),
        Some(Err(fault)) => (EnvFilter::new("info"), Some(fault)),
        None => (EnvFilter::new("info"), None),
    };
    tracing_subscriber::fmt()
        .compact()
        .with_target(false)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_env_filter(filter)
        .init();
    if let Some(fault) = fault {
        warn!("RUST_LOG is not understood, so everything from `info` on is logged: {fault}");
    }
}

/// An error and what caused it, in one line.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let text = next.to_string();
        if !told.contains(&text) {
            told = format!("{told}: {text}");
        }
        cause = next.source();
    }
    told
}

/// Says where the shop is and what to try.
pub(crate) fn welcome(address: SocketAddr) {
    let url = format!("http://{}:{}", host(address), address.port());
    // Whoever started the shop may have stopped listening to it: no reason to fall over.
    let _ = writeln!(
        io::stdout(),
        r#"
  The shop is open: {url}

  A checkout that succeeds:
    curl -X POST {url}/checkout -H 'Content-Type: application/json' \
      -d '{{"checkout": {{"cart_items": [{{"product_id": 1, "quantity": 2}}], "payment_info": {{"token": "test_success_visa", "amount": 100.00}}, "customer_info": {{"email": "test@example.com", "name": "Test Customer"}}}}}}'

  A payment that is retried:
    curl -X POST {url}/checkout -H 'Content-Type: application/json' \
      -d '{{"checkout": {{"cart_items": [{{"product_id": 2, "quantity": 1}}], "payment_info": {{"token": "test_timeout_gateway", "amount": 50.00}}, "customer_info": {{"email": "retry@example.com", "name": "Retry Test"}}}}}}'

  Then:  curl {url}/order_status/TASK_ID
  Kill it at any instant and start it again: it goes on where it was.

listening on {url}"#
    );
}

/// Where a browser on this machine finds the shop.
fn host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => "127.0.0.1".to_owned(),
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => "[::1]".to_owned(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    }
}

/// Writes a line for every event until there are no more.
pub(crate) async fn narrate(mut events: Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(event) => narrate_one(&event),
            Err(RecvError::Lagged(missed)) => warn!(missed, "too much happens to tell it all"),
            Err(RecvError::Closed) => return,
        }
    }
}

fn narrate_one(event: &Event) {
    let task = event.task;
    match &event.kind {
        EventKind::TaskStarted => debug!(%task, "a worker takes the order"),
        EventKind::StepStarted { step, attempt } => debug!(%task, step, attempt, "step started"),
        EventKind::StepCompleted { step, attempt, ran_for, .. } => {
            info!(%task, step, attempt, took = millis(*ran_for), "step complete");
        }
        EventKind::StepFailed { step, attempt, failure, ran_for } => {
            let Failure { code, message, .. } = failure;
            let took = millis(*ran_for);
            warn!(%task, step, attempt, took, code, reason = message, "step failed");
        }
        EventKind::StepRetrying { step, retry_in, .. } => {
            info!(%task, step, retry_in = millis(*retry_in), "step will be tried again");
        }
        EventKind::StepExhausted { step, attempts, .. } => {
            info!(%task, step, attempts, "step has failed for good");
        }
        // The log is one of those that escalations are delivered to.
        EventKind::TaskEscalated { .. } => {}
        EventKind::TaskCompleted { degraded } => info!(%task, degraded, "order complete"),
        EventKind::TaskFailed => info!(%task, "order failed"),
        EventKind::TaskCancelled => info!(%task, "order cancelled"),
        EventKind::TaskRetried => info!(%task, "order is tried again"),
        EventKind::TaskCompensating => info!(%task, "what was done for the order is being undone"),
        EventKind::TaskCompensated => info!(%task, "order failed, and nothing is left of it"),
        EventKind::StepCompensated { step, attempt, ran_for } => {
            info!(%task, step, attempt, took = millis(*ran_for), "step undone");
        }
        EventKind::StepCompensationFailed { step, attempt, failure, .. } => {
            let Failure { code, message, .. } = failure;
            warn!(%task, step, attempt, code, reason = message, "step not undone");
        }
        EventKind::TaskOperated { action, step } => {
            info!(%task, %action, step, "somebody acted on the order");
        }
        EventKind::SystemOpened { system, reason } => {
            warn!(system, reason, "a system is down: what depends on it waits");
        }
        EventKind::SystemClosed { system } => info!(system, "a system is well again"),
        other => info!(%task, ?other, "order moved"),
    }
}

/// Writes to the log what needs a person: at least once, whatever crashes.
///
/// At level `ERROR`, but for what is over, and for a customer whose order is refused: whatever a
/// handler calls permanent is the answer to a question, not a fault.
pub(crate) fn escalations() -> impl EscalationSink {
    sink_fn("log", async |escalation: Escalation| {
        let task = escalation.incident.task().map(tracing::field::display);
        match &escalation.incident {
            _ if escalation.state == EscalationState::Resolved => {
                info!(task, reason = %escalation, "nobody is needed any more");
            }
            Incident::StepFailed { failure, .. } if failure.class == FailureClass::Permanent => {
                warn!(task, reason = %escalation, "order refused");
            }
            Incident::BreakerOpened { .. } => error!(reason = %escalation, "somebody is needed"),
            _ => error!(task, reason = %escalation, "somebody should look at this order"),
        }
        Ok::<_, SinkError>(())
    })
}

fn millis(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}
