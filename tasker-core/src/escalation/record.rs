//! What the document of an escalation says, and what it says next.
//!
//! Pure: a record, what happened and the time go in, the next record comes out.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Delivery, Escalation, EscalationState, Incident, SeenTo, tidy};
use crate::store::{Content, Document, DocumentChange, StoredTask};
use crate::{Backoff, Fingerprint, Json, OnFailure, Strategy};

/// For so long a worker that has begun to deliver is left to it; if nothing is recorded until then
/// it is thought dead, and its deliveries are made again.
pub(crate) const CLAIM_LEASE: Duration = Duration::from_secs(60);

/// For so long what is due to a sink is left to the workers that have it: they hear of it with a
/// sign of life.
pub(crate) const GRACE: Duration = Duration::from_secs(15);

/// When nobody had a sink: how long at least until the next look.
const LEAST_WAIT: Duration = Duration::from_secs(60);

/// Why a sink was not told that nobody had.
const NOBODY: &str = "no worker that looked has a sink of this name";

/// The sinks of those who look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sinks<'a> {
    /// Those of the worker.
    pub(crate) own: &'a [&'a str],
    /// Those that workers of the store are known to have.
    pub(crate) known: &'a [String],
}

/// The waits between the attempts to tell a sink: from a second to an hour, without end.
const WAITS: Backoff = Backoff {
    strategy: Strategy::Exponential,
    base: Duration::from_secs(1),
    multiplier: 2.0,
    max: Duration::from_secs(3600),
    jitter: 0.25,
};

/// The body of an escalation's document, once somebody has looked at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) incident: Incident,
    /// Names, so that the task need not be read again for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    about: Option<About>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acknowledged: Option<SeenTo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resolved: Option<SeenTo>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    deliveries: BTreeMap<String, Delivery>,
}

/// What a task and its step are called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    task_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<String>,
    #[serde(default)]
    optional: bool,
}

impl Record {
    /// What a document says; as it is raised, that is the incident alone.
    ///
    /// # Errors
    /// It was written by another version of Tasker.
    pub(crate) fn read(document: &Document) -> Result<Self, serde_json::Error> {
        document.body.to().or_else(|error| match document.body.to() {
            Ok(incident) => Ok(Self::new(incident)),
            Err(_) => Err(error),
        })
    }

    const fn new(incident: Incident) -> Self {
        let deliveries = BTreeMap::new();
        Self { incident, about: None, acknowledged: None, resolved: None, deliveries }
    }

    pub(crate) const fn state(&self) -> EscalationState {
        if self.resolved.is_some() {
            EscalationState::Resolved
        } else if self.acknowledged.is_some() {
            EscalationState::Acknowledged
        } else {
            EscalationState::Open
        }
    }

    /// Whether the task has to be read for the names.
    pub(crate) const fn lacks_names(&self) -> bool {
        self.about.is_none() && self.incident.task().is_some()
    }

    /// Takes the names from the task.
    pub(crate) fn name(&mut self, task: &StoredTask) {
        let step = self.incident.step();
        let step = step.and_then(|step| task.template.steps().get(step.get()));
        self.about = Some(About {
            task_type: task.template.task_type().to_string(),
            step: step.map(|step| step.name.clone()),
            optional: step.is_some_and(|step| step.on_failure == OnFailure::Continue),
        });
    }

    /// Begins to deliver: those of a worker's sinks that are to be told now.
    ///
    /// Nobody else tells them before the [lease](CLAIM_LEASE) is over. What is due to a sink that
    /// only others have is left to them for some [time](GRACE), and then put off.
    pub(crate) fn claim(
        &mut self,
        document: &Document,
        sinks: &Sinks<'_>,
        now: Timestamp,
    ) -> Vec<String> {
        let state = self.state();
        if state == EscalationState::Open {
            let own = sinks.own.iter().map(|sink| (*sink).to_owned());
            for sink in own.chain(sinks.known.iter().cloned()) {
                self.deliveries.entry(sink).or_default();
            }
        }
        let mut claimed = Vec::new();
        for (sink, delivery) in &mut self.deliveries {
            if !is_owed(delivery, state) {
                continue;
            }
            let due = *delivery.next_at.get_or_insert(now);
            if due > now {
                continue;
            }
            if sinks.own.contains(&sink.as_str()) {
                delivery.attempts = delivery.attempts.saturating_add(1);
                delivery.next_at = now.checked_add(CLAIM_LEASE).ok();
                claimed.push(sink.clone());
            } else if due.checked_add(GRACE).is_ok_and(|over| over <= now) {
                let age = now.duration_since(document.created_at);
                let age = Duration::try_from(age).unwrap_or_default();
                delivery.next_at = now.checked_add(age.clamp(LEAST_WAIT, WAITS.max)).ok();
                delivery.last_error = Some(NOBODY.to_owned());
            }
        }
        claimed
    }

    /// Takes note of how telling a sink ended.
    pub(crate) fn told(&mut self, key: &str, told: &Told<'_>, now: Timestamp) {
        let Told { sink, of, outcome } = told;
        let delivery = self.deliveries.entry((*sink).to_owned()).or_default();
        let told_at = match of {
            EscalationState::Resolved => &mut delivery.resolved_at,
            EscalationState::Open | EscalationState::Acknowledged => &mut delivery.delivered_at,
        };
        // Of two deliveries the first is the one that counts.
        if told_at.is_some() {
            return;
        }
        match outcome {
            Ok(()) => {
                *told_at = Some(now);
                delivery.next_at = None;
            }
            Err(error) => fail(delivery, key, sink, error, now),
        }
    }

    /// Takes note that somebody has seen it; false if nothing changes by that.
    pub(crate) fn acknowledge(&mut self, seen: SeenTo) -> bool {
        let changes = self.state() == EscalationState::Open;
        if changes {
            self.acknowledged = Some(seen);
        }
        changes
    }

    /// Takes note that somebody has settled it; false if nothing changes by that.
    pub(crate) fn resolve(&mut self, seen: SeenTo) -> bool {
        let changes = self.resolved.is_none();
        if changes {
            self.resolved = Some(seen);
        }
        changes
    }

    /// How long until somebody should see to its deliveries.
    fn due_in(&self, now: Timestamp) -> Option<Duration> {
        let state = self.state();
        if state == EscalationState::Open && self.deliveries.is_empty() {
            return Some(Duration::ZERO);
        }
        let owed = self.deliveries.values().filter(|delivery| is_owed(delivery, state));
        let next = owed.map(|delivery| delivery.next_at.unwrap_or(now)).min()?;
        Some(Duration::try_from(next.duration_since(now)).unwrap_or_default())
    }

    /// The change that makes a document say this.
    ///
    /// # Errors
    /// None in practice: everything in a record has a JSON form.
    pub(crate) fn replaces(
        &self,
        document: &Document,
        now: Timestamp,
    ) -> Result<DocumentChange, serde_json::Error> {
        let state = self.state().as_str().to_owned();
        let put = Content { state, due_in: self.due_in(now), body: Json::of(self)? };
        let (collection, key) = (document.collection, document.key.clone());
        Ok(DocumentChange { collection, key, expects: Some(document.version), put: Some(put) })
    }

    /// The escalation for people and sinks.
    pub(crate) fn escalation(&self, document: &Document) -> Escalation {
        let about = self.about.as_ref();
        Escalation {
            key: document.key.clone(),
            incident: self.incident.clone(),
            state: self.state(),
            task_type: about.map(|about| about.task_type.clone()),
            step: about.and_then(|about| about.step.clone()),
            optional: about.is_some_and(|about| about.optional),
            raised_at: document.created_at,
            acknowledged: self.acknowledged.clone(),
            resolved: self.resolved.clone(),
            deliveries: self.deliveries.clone(),
        }
    }
}

/// How telling a sink ended.
#[derive(Clone, Debug)]
pub(crate) struct Told<'a> {
    pub(crate) sink: &'a str,
    /// How the escalation stood when it was told.
    pub(crate) of: EscalationState,
    pub(crate) outcome: Result<(), String>,
}

/// Whether a sink is still to be told how an escalation stands: that it was raised, or, if it was
/// or may have been told that, that it is resolved.
const fn is_owed(delivery: &Delivery, state: EscalationState) -> bool {
    match state {
        EscalationState::Open => delivery.delivered_at.is_none(),
        EscalationState::Acknowledged => false,
        EscalationState::Resolved => delivery.attempts > 0 && delivery.resolved_at.is_none(),
    }
}

fn fail(delivery: &mut Delivery, key: &str, sink: &str, error: &str, now: Timestamp) {
    // Spread, so that what failed together is not tried again together.
    let seed = Fingerprint::of(format!("{key}/{sink}/{}", delivery.attempts).as_bytes());
    let seed = seed.as_bytes().iter().take(8).fold(0u64, |seed, it| (seed << 8) | u64::from(*it));
    delivery.next_at = now.checked_add(WAITS.delay(delivery.attempts, None, seed)).ok();
    delivery.last_error = Some(tidy(error));
}

#[cfg(test)]
mod tests;
