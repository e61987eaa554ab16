//! Explanations as people read them, and as JSON.

use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::{StepCause, StepWhy, TaskCause, WaitForSystem, Why};
use crate::breaker::BreakerState;
use crate::history::{Author, Failure};

/// Steps or handlers as a sentence lists them.
struct List<'a>(&'a str, &'a [String]);

/// A failure, if one is known.
struct Failed<'a>(Option<&'a Failure>);

/// Until when a worker's lease runs, if that is known.
struct Lease(Option<Timestamp>);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(noun, names) = self;
        let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        let plural = if names.len() == 1 { "" } else { "s" };
        write!(f, "{noun}{plural} {}", quoted.join(", "))
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |until| write!(f, " (lease until {until})"))
    }
}

impl fmt::Display for Failed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Failure { code, message, .. }) => write!(f, " with {code} ({message})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for WaitForSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { system, state, since, next_probe, reason } = self;
        write!(f, "`{system}`: ")?;
        if *state == BreakerState::Closed {
            return f.write_str("there are as many calls to it as it is known to bear");
        }
        f.write_str("its breaker is open")?;
        since.map_or(Ok(()), |since| write!(f, " since {since}"))?;
        match (state, next_probe) {
            (BreakerState::Open, Some(at)) => write!(f, ", next probe at {at}")?,
            (_, Some(_)) => f.write_str(", it is being probed")?,
            (_, None) => f.write_str(", until an operator resets it")?,
        }
        reason.as_ref().map_or(Ok(()), |reason| write!(f, "; {reason}"))
    }
}

/// Who did something, if that is known.
struct By<'a>(Option<&'a Author>);

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Author::Operator(name)) => write!(f, " by {name}"),
            Some(Author::Worker(worker)) => write!(f, " by worker {worker}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for TaskCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delayed { until } => {
                write!(f, "the task was submitted with a delay: it may start at {until}")
            }
            Self::WaitsForWorker { route, since, lost } => {
                write!(f, "the task waits for a worker that serves `{route}`")?;
                if let Some(since) = since {
                    write!(f, ", since {since}")?;
                }
                lost.map_or(Ok(()), |worker| write!(f, ", when worker {worker} was lost"))
            }
            Self::WaitsForHandler { handlers, since } => {
                write!(f, "the task waits for a worker that has {}", List("handler", handlers))?;
                since.map_or(Ok(()), |since| write!(f, ", since {since}"))
            }
            Self::WaitsForSystem(wait) => write!(f, "the task waits for {wait}"),
            Self::Paused { by, reason, since } => {
                f.write_str("the task was paused")?;
                By(by.as_ref()).fmt(f)?;
                if let Some(since) = since {
                    write!(f, " at {since}")?;
                }
                reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
            }
            Self::Compensating { left, now } => match left.as_slice() {
                [] => write!(f, "what the task did is undone: {now}"),
                steps => {
                    write!(f, "the task is being undone, {} to go: {now}", List("step", steps))
                }
            },
            Self::CompensationFailed { failed } => write!(
                f,
                "{} could not be undone: the task needs a person to retry or resolve it",
                List("step", failed)
            ),
            Self::WaitsForRetry { retries, at } => match retries.as_slice() {
                [] => write!(f, "the task goes on at {at}"),
                steps => {
                    write!(f, "the task goes on at {at} with a retry of {}", List("step", steps))
                }
            },
            Self::Owned { worker, lease_until, due } => match due.as_slice() {
                [] => write!(
                    f,
                    "worker {worker}{} is about to record what becomes of the task",
                    Lease(*lease_until)
                ),
                steps => {
                    let lease = Lease(*lease_until);
                    let wait = if steps.len() == 1 {
                        "runs there, waits there for a slot, or is"
                    } else {
                        "run there, wait there for a slot, or are"
                    };
                    let steps = List("step", steps);
                    write!(
                        f,
                        "worker {worker}{lease} owns the task: {steps} {wait} offered to other workers"
                    )
                }
            },
            Self::Failing { worker, failed } => write!(
                f,
                "{} failed for good: the task fails as soon as what else runs at worker {worker} \
                 has ended",
                List("step", failed)
            ),
            Self::Failed { failed } => match failed.as_slice() {
                [] => f.write_str("the task failed: it needs a person to retry or cancel it"),
                steps => write!(
                    f,
                    "{} failed for good: the task needs a person to retry or cancel it",
                    List("step", steps)
                ),
            },
            Self::Quarantined { deliveries } => write!(
                f,
                "{deliveries} workers were lost with the task in a row: it is quarantined and needs \
                 a person to retry or cancel it"
            ),
            Self::Cancelled { by, reason } => {
                f.write_str("the task was cancelled")?;
                By(by.as_ref()).fmt(f)?;
                reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
            }
        }
    }
}

/// The attempt after which there was none.
struct LastAttempt<'a>(u32, Option<&'a Failure>);

impl fmt::Display for LastAttempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(attempt, failure) = self;
        write!(f, " at attempt {attempt}{}", Failed(*failure))?;
        match failure.map(|failure| failure.class.is_retryable()) {
            Some(true) => f.write_str(": its attempts are used up"),
            Some(false) => f.write_str(": no attempt would succeed"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for StepCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocked { waits_for } => write!(f, "waits for {}", List("step", waits_for)),
            Self::WaitsForRetry { at, attempt, limit, failure } => {
                let failed = Failed(failure.as_ref());
                write!(f, "retries at {at}: attempt {attempt} of {limit} failed{failed}")
            }
            Self::WaitsForSystem(wait) => write!(f, "waits for {wait}"),
            Self::WaitsForWorker { handler, since } => {
                write!(f, "waits since {since} for a worker that has handler `{handler}`")
            }
            Self::WithWorker { worker, handler, since } => write!(
                f,
                "is due since {since}: handler `{handler}` runs at worker {worker}, waits there for a \
                 slot, or is offered to other workers"
            ),
            Self::TaskPaused => f.write_str("goes on once its task is resumed"),
            Self::UndoneLater { waits_for } => {
                write!(f, "is undone after {}", List("step", waits_for))
            }
            Self::Failed { attempt, failure } => {
                f.write_str("failed for good")?;
                LastAttempt(*attempt, failure.as_ref()).fmt(f)
            }
            Self::CompensationFailed { attempt, failure } => {
                f.write_str("could not be undone")?;
                LastAttempt(*attempt, failure.as_ref()).fmt(f)
            }
            Self::TaskFailed => {
                f.write_str("is not begun any more, and may end if it runs: the task has failed")
            }
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl fmt::Display for StepWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step `{}` {}", self.step, self.cause)
    }
}

/// The form of [`Why`] and [`StepWhy`] in JSON.
#[derive(Serialize)]
struct Told<'a, C> {
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'a str>,
    #[serde(flatten)]
    cause: &'a C,
    sentence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<&'a [StepWhy]>,
}

impl Serialize for Why {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { cause, steps } = self;
        Told { step: None, cause, sentence: self.to_string(), steps: Some(steps) }
            .serialize(serializer)
    }
}

impl Serialize for StepWhy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { step, cause } = self;
        Told { step: Some(step), cause, sentence: self.to_string(), steps: None }
            .serialize(serializer)
    }
}
