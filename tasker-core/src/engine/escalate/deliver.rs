//! Delivers one escalation to the sinks for which it was claimed, and records how that went.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, warn};

use super::super::Core;
use super::super::mail::StoreClock;
use super::super::patience::Patience;
use crate::escalation::{CLAIM_LEASE, Escalation, EscalationSink, Record, Told};
use crate::store::{Applied, Collection, Document, DocumentQuery, StoreError};

/// How long a sink may take: half a claim, so that there is time to record it.
const DEADLINE: Duration = Duration::from_secs(CLAIM_LEASE.as_secs() / 2);

/// A sink that blocks its thread is not waited for much longer than its time.
const A_MOMENT: Duration = Duration::from_secs(1);

/// An escalation that is this worker's to deliver.
pub(super) struct Claimed {
    pub(super) record: Record,
    /// The document as it was read, before the claim.
    pub(super) document: Document,
    pub(super) sinks: Vec<String>,
}

/// Tells the sinks side by side; how long until the document is due again.
pub(super) async fn run(core: Arc<Core>, claimed: Claimed, clock: StoreClock) -> Option<Duration> {
    let Claimed { record, mut document, sinks } = claimed;
    document.version += 1;
    let escalation = Arc::new(record.escalation(&document));
    let wanted = core.shared.sinks.iter().filter(|it| sinks.iter().any(|name| name == it.name()));
    let calls: Vec<_> = wanted
        .map(|sink| {
            let (name, sink, escalation) = (sink.name(), sink.clone(), escalation.clone());
            let call = async move { tell(sink, &escalation).await };
            // Where steps run as well, so that a sink that blocks its thread disturbs no loop.
            (name, AbortOnDropHandle::new(core.handlers.spawn(call)))
        })
        .collect();
    let latest = Instant::now() + DEADLINE + A_MOMENT;
    let mut outcomes = Vec::with_capacity(calls.len());
    for (sink, call) in calls {
        let outcome = match tokio::time::timeout_at(latest, call).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err("the sink panicked".to_owned()),
            Err(_) => Err("the sink blocks its thread".to_owned()),
        };
        if let Err(error) = &outcome {
            warn!(%error, sink, key = document.key, "an escalation was not delivered");
        }
        outcomes.push(Told { sink, of: escalation.state, outcome });
    }
    settle(&core, record, document, &outcomes, clock).await
}

async fn tell(sink: Arc<dyn EscalationSink>, escalation: &Escalation) -> Result<(), String> {
    match tokio::time::timeout(DEADLINE, sink.deliver(escalation)).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {DEADLINE:?}")),
    }
}

/// Records what became of the deliveries, whatever else was done to the escalation meanwhile.
async fn settle(
    core: &Core,
    mut record: Record,
    mut document: Document,
    outcomes: &[Told<'_>],
    clock: StoreClock,
) -> Option<Duration> {
    let store = &core.shared.store;
    let mut patience = Patience::new();
    loop {
        let now = clock.now();
        for told in outcomes {
            record.told(&document.key, told, now);
        }
        let change = record.replaces(&document, now).ok()?;
        let due_in = change.put.as_ref().and_then(|put| put.due_in);
        let failed = match store.write_documents(vec![change]).await {
            Ok(written) if written.applied == [Applied::Yes] => return due_in,
            // Somebody has seen to it, or an answer was lost: from what is stored once more.
            Ok(_) => None,
            Err(error) => Some(error),
        };
        let stored = match failed {
            None => {
                let (collection, keys) = (Collection::Escalation, vec![document.key.clone()]);
                store.read_documents(DocumentQuery::Keys { collection, keys }).await
            }
            Some(error) => Err(error),
        };
        match stored {
            Ok(stored) => {
                document = stored.found.into_iter().next()?;
                record = Record::read(&document).ok()?;
            }
            Err(error @ StoreError::Damaged { .. }) => {
                error!(%error, key = document.key, "a delivery cannot be recorded");
                return None;
            }
            Err(error) => {
                if patience.tells() {
                    warn!(%error, key = document.key, "a delivery cannot be recorded yet");
                }
                patience.pause().await;
            }
        }
    }
}
