//! A call to a system: what goes before the handler runs, and what its end says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::warn;

use super::{Place, Right, Systems};
use crate::breaker::{Breaker, SystemPolicy, Verdict, verdict};
use crate::engine::attempt::Ended;
use crate::event::EventKind;
use crate::handler::StepInput;
use crate::history::Failure;
use crate::store::StoreError;

/// How long an attempt waits for the store to take note of it, before and after the handler runs.
pub(in crate::engine) const NOTE: Duration = Duration::from_secs(1);

/// A probe counts as lost so much later than its time-out.
const LATE: Duration = Duration::from_secs(5);

/// The place of a call that is under way, if it needs one.
///
/// Who is first to say that the call has ended takes it: the attempt, or whoever finds that its
/// handler does not give its thread back.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct UnderWay(Arc<Mutex<Option<Place>>>);

impl UnderWay {
    pub(in crate::engine) fn begins(&self, place: Place) {
        *self.lock() = Some(place);
    }

    pub(in crate::engine) fn ends(&self) -> Option<Place> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a call came to.
struct Said<'a> {
    verdict: Verdict,
    failure: Option<&'a Failure>,
}

impl<'a> Said<'a> {
    fn of(ended: &'a Ended, input: &StepInput) -> Self {
        let failure = match ended {
            Ended::Outcome { outcome: Err(failure), .. } => Some(failure),
            Ended::Outcome { outcome: Ok(_), .. }
            | Ended::Recorded(_)
            | Ended::Unknown
            | Ended::Cancelled
            | Ended::Parked => None,
        };
        let cancelled = matches!(ended, Ended::Cancelled | Ended::Parked);
        let verdict = match failure {
            Some(failure) => verdict(input.template.step(input.step), failure),
            None if cancelled => Verdict::Silent,
            None => Verdict::Well,
        };
        Self { verdict, failure }
    }
}

impl Place {
    /// Whether the call may be made: for a probe, whether no other process was quicker.
    pub(in crate::engine) async fn permitted(
        &mut self,
        systems: &Systems,
        input: &StepInput,
    ) -> bool {
        let Right::Probe(permit) = &mut self.right else { return true };
        let takes = input.template.step(input.step).timeout.saturating_add(LATE);
        let begin = async {
            let _writing = self.system.writing.lock().await;
            let begin = |breaker: &mut Breaker, now| breaker.begin_probe(input.worker, takes, now);
            self.system.change(&*systems.store, begin).await
        };
        match tokio::time::timeout(NOTE, begin).await {
            Ok(Ok(begun)) => {
                *permit = begun;
                self.system.probes(takes);
            }
            Ok(Err(error)) => {
                warn!(system = self.system.name, %error, "a probe cannot be noted");
                self.system.stay_away();
            }
            Err(_) => self.system.stay_away(),
        }
        permit.is_some()
    }

    /// The call has ended; the event that follows from that for the system, and whether it was found
    /// to be down, so that the attempt does not count.
    ///
    /// If the store is away, what was to be noted is noted with the next failure, and the attempt
    /// counts.
    pub(in crate::engine) async fn ended(
        self,
        systems: &Systems,
        input: &StepInput,
        ended: &Ended,
    ) -> (Option<EventKind>, bool) {
        let policy = input.template.system_policy(&self.system.name);
        let said = Said::of(ended, input);
        let noting = self.note(systems, &said, &policy);
        let noted = match tokio::time::timeout(NOTE, noting).await {
            Ok(Ok(event)) => event,
            Ok(Err(error)) => {
                warn!(system = self.system.name, %error, "how a call ended cannot be noted");
                None
            }
            Err(_) => None,
        };
        let retryable = said.failure.is_some_and(|failure| failure.class.is_retryable());
        let failed = said.verdict == Verdict::Failed && retryable;
        (noted, failed && self.system.view().breaker.is_open())
    }

    async fn note(
        &self,
        systems: &Systems,
        said: &Said<'_>,
        policy: &SystemPolicy,
    ) -> Result<Option<EventKind>, StoreError> {
        let (system, store) = (&self.system, &*systems.store);
        let name = || system.name.clone();
        let Right::Probe(permit) = self.right else {
            match (said.verdict, said.failure) {
                (Verdict::Failed, Some(failure)) => {
                    system.view().allowance.failed();
                    let opened = system.write_failure(store, failure, policy).await?;
                    let reason = system.reason().filter(|_| opened);
                    let opened = |reason| EventKind::SystemOpened { system: name(), reason };
                    return Ok(reason.map(opened));
                }
                (Verdict::Well, _) => system.note_success(policy),
                (Verdict::Failed | Verdict::Silent, _) => {}
            }
            return Ok(None);
        };
        let Some(probe) = permit else { return Ok(None) };
        let _writing = system.writing.lock().await;
        let closed = system.change(store, |breaker, now| match (said.verdict, said.failure) {
            (Verdict::Well, _) => breaker.probe_succeeded(probe, policy, now),
            (Verdict::Failed | Verdict::Silent, Some(failure)) => {
                breaker.probe_failed(probe, failure, policy, now);
                false
            }
            (Verdict::Failed | Verdict::Silent, None) => {
                breaker.probe_dropped(probe);
                false
            }
        });
        Ok(closed.await?.then(|| EventKind::SystemClosed { system: name() }))
    }
}
