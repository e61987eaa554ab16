//! One attempt at a step: its time-out, its cancellation, its panic.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use super::mail::StoreClock;
use super::systems::{NOTE, Place, UnderWay};
use crate::Json;
use crate::event::EventKind;
use crate::handler::{
    Output, StepContext, StepError, StepHandler, StepInput, StepOutput, StepResult,
};
use crate::history::{Failure, FailureClass, Recorded, unstorable};

/// How long a handler that was cancelled may wind up before its future is dropped.
const WIND_UP: Duration = Duration::from_secs(1);

/// Messages and codes are cut to this many bytes: they are for people, and stored with every row.
const MAX_MESSAGE: usize = 4096;

/// What an attempt came to.
#[derive(Debug)]
pub(super) enum Ended {
    /// An outcome that is to be recorded.
    Outcome { outcome: Result<Json, Failure>, retry_after: Option<Duration>, spared: bool },
    /// A success that the handler has recorded itself.
    Recorded(Box<Recorded>),
    /// A success of which it is not known whether the handler has recorded it.
    Unknown,
    /// It was no longer wanted; nothing is recorded.
    Cancelled,
    /// It did not begin: the system that it depends on takes no call.
    Parked,
}

/// An attempt that has a slot.
pub(super) struct Began {
    pub(super) handler: Arc<dyn StepHandler>,
    pub(super) input: Arc<StepInput>,
    pub(super) clock: StoreClock,
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) call: UnderWay,
}

impl Began {
    /// Makes the attempt, with a place at the system that it calls; how long the handler ran.
    pub(super) async fn run(self, shared: &Shared, place: Option<Place>) -> (Duration, Ended) {
        let Self { handler, input, clock, permit, call } = self;
        if let Some(mut place) = place {
            if !place.permitted(&shared.systems, &input).await {
                return (Duration::ZERO, Ended::Parked);
            }
            call.begins(place);
        }
        let (step, attempt) = (input.template.step(input.step), input.attempt);
        // Its time begins when it does.
        input.time.extend(step.timeout);
        let started = || EventKind::StepStarted { step: step.name.clone(), attempt };
        shared.events.tell(input.task, &input.template, clock.now(), started);
        let ended = run(handler, input.clone()).await;
        let ran_for = input.time.elapsed();
        drop(permit);
        match call.ends() {
            Some(place) => (ran_for, note(shared, place, &input, clock, ended).await),
            None => (ran_for, ended),
        }
    }
}

/// Notes what the end of a call says about the system; the end, spared if that is found to be down.
pub(super) async fn note(
    shared: &Shared,
    place: Place,
    input: &StepInput,
    clock: StoreClock,
    mut ended: Ended,
) -> Ended {
    // Meanwhile the attempt is not late, whatever its time-out is.
    input.time.extend(NOTE);
    let (event, found_down) = place.ended(&shared.systems, input, &ended).await;
    if let Some(event) = event {
        // Opening a breaker raises an escalation, and closing it resolves that.
        shared.raised.notify_one();
        shared.events.tell(input.task, &input.template, clock.now(), || event);
    }
    if let Ended::Outcome { spared, .. } = &mut ended {
        *spared = found_down;
    }
    ended
}

/// Runs a handler until it ends, times out or is cancelled.
async fn run(handler: Arc<dyn StepHandler>, input: Arc<StepInput>) -> Ended {
    let step = StepContext::new(input.clone());
    let mut process = Box::pin(async move { handler.process(step).await });
    let result = tokio::select! {
        // A handler that is ready at once costs no timer.
        biased;
        result = catch_panics(process.as_mut()) => result,
        () = timed_out(&input) => return Ended::failed(time_out_failure(&input)),
        () = input.cancellation.cancelled() => {
            // Whether it winds up or is dropped: its outcome is nobody's, unless it is on record.
            let wound_up = tokio::time::timeout(WIND_UP, catch_panics(process.as_mut())).await;
            return match wound_up {
                Ok(Ok(Ok(StepOutput(Output::Recorded(row))))) => Ended::Recorded(row),
                _ => Ended::Cancelled,
            };
        }
    };
    match result {
        Ok(Ok(StepOutput(Output::Result(result)))) => {
            match unstorable(&result, input.max_result_bytes) {
                None => Ended::Outcome { outcome: Ok(result), retry_after: None, spared: false },
                Some(failure) => Ended::failed(failure),
            }
        }
        Ok(Ok(StepOutput(Output::Recorded(row)))) => Ended::Recorded(row),
        Ok(Ok(StepOutput(Output::Unknown))) => Ended::Unknown,
        Ok(Ok(StepOutput(Output::Refused)) | Err(_)) if input.cancellation.is_cancelled() => {
            Ended::Cancelled
        }
        // Whether the task was moved is for the store to say: then this is refused as well.
        Ok(Ok(StepOutput(Output::Refused))) => failed(not_recorded()),
        Ok(Err(error)) => failed(error),
        Err(panic) => Ended::failed(panicked(panic.as_ref())),
    }
}

impl Ended {
    fn failed(failure: Failure) -> Self {
        Self::Outcome { outcome: Err(failure), retry_after: None, spared: false }
    }
}

/// Resolves when the attempt's time is over, heartbeats considered.
async fn timed_out(input: &StepInput) {
    loop {
        let deadline = input.time.deadline();
        tokio::time::sleep_until(deadline).await;
        if input.time.deadline() <= deadline {
            return;
        }
    }
}

/// Polls a handler so that its panic stays its own.
async fn catch_panics(
    mut process: Pin<&mut (impl Future<Output = StepResult> + ?Sized)>,
) -> Result<StepResult, Box<dyn Any + Send>> {
    poll_fn(|context| {
        // A handler that panicked is never polled again, so nobody sees what it left half done.
        match catch_unwind(AssertUnwindSafe(|| process.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(result)) => Poll::Ready(Ok(result)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

/// The failure of an attempt that took too long.
pub(super) fn time_out_failure(input: &StepInput) -> Failure {
    let timeout = input.template.step(input.step).timeout;
    Failure {
        class: FailureClass::TimedOut,
        code: "TIMED_OUT".to_owned(),
        message: format!("the attempt took longer than its time-out of {timeout:?}"),
    }
}

/// The failure of an attempt that took too long and does not give its thread back.
pub(super) fn blocked_failure(input: &StepInput) -> Failure {
    let mut failure = time_out_failure(input);
    failure.message.push_str("; its handler blocks its thread: move that part to `spawn_blocking`");
    failure
}

fn not_recorded() -> StepError {
    let message = "the handler was to record the step's success itself, and was refused";
    StepError::retryable(message).with_code("NOT_RECORDED")
}

fn failed(error: StepError) -> Ended {
    let (class, code, message, retry_after) = match error {
        StepError::Retryable { message, code, retry_after } => {
            let code = code.unwrap_or_else(|| "RETRYABLE".to_owned());
            (FailureClass::Retryable, code, message, retry_after)
        }
        StepError::Permanent { message, code } => (FailureClass::Permanent, code, message, None),
    };
    let failure = Failure { class, code: fit(code), message: fit(message) };
    Ended::Outcome { outcome: Err(failure), retry_after, spared: false }
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
    let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
    let message = match said {
        Some(said) => format!("the handler panicked: {said}"),
        None => "the handler panicked".to_owned(),
    };
    Failure { class: FailureClass::Panicked, code: "PANICKED".to_owned(), message: fit(message) }
}

/// A text that every store takes: not too long, no NUL.
fn fit(mut text: String) -> String {
    if text.len() > MAX_MESSAGE {
        text.truncate(text.floor_char_boundary(MAX_MESSAGE));
        text.push('…');
    }
    if text.contains('\0') { text.replace('\0', "␀") } else { text }
}
