//! Escalations in words and as JSON.

use std::fmt;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use super::{Escalation, EscalationState, Incident, SeenTo};

impl fmt::Display for EscalationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Escalation {
    /// What the step is called, by its place in the template if that is all that is known.
    fn step_name(&self) -> String {
        match (&self.step, self.incident.step()) {
            (Some(name), _) => format!("step `{name}`"),
            (None, Some(index)) => format!("step {}", index.get() + 1),
            (None, None) => "a step".to_owned(),
        }
    }

    fn task_name(&self) -> String {
        let id = self.incident.task().map(|task| format!("task {task}")).unwrap_or_default();
        let of = self.task_type.as_ref().map(|of| format!(" (`{of}`)")).unwrap_or_default();
        format!("{id}{of}")
    }
}

impl fmt::Display for Escalation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.say_what(f)?;
        match &self.resolved {
            // What a person wrote may be for no log; whoever wants it has the field.
            Some(SeenTo { by, .. }) => write!(f, "; resolved by {by}"),
            None => Ok(()),
        }
    }
}

impl Escalation {
    fn say_what(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (step, task) = (self.step_name(), self.task_name());
        match &self.incident {
            Incident::StepFailed { attempt, failure, .. } => {
                let (code, message) = (&failure.code, &failure.message);
                write!(f, "{step} of {task} failed for good in attempt {attempt}: ")?;
                write!(f, "{message} ({code})")?;
                if self.optional { f.write_str("; the task goes on without it") } else { Ok(()) }
            }
            Incident::CompensationFailed { attempt, failure, .. } => {
                let (code, message) = (&failure.code, &failure.message);
                write!(f, "what {step} of {task} did was not undone in attempt {attempt}: ")?;
                write!(f, "{message} ({code})")
            }
            Incident::Quarantined { deliveries, .. } => {
                write!(f, "{task} was taken out of circulation: ")?;
                write!(f, "{deliveries} workers were lost with it in a row")
            }
            Incident::TaskOverdue { deadline, .. } => {
                write!(f, "{task} has not ended within {deadline:?}")
            }
            Incident::StepOverdue { expected_within, .. } => {
                write!(f, "{step} of {task} has not ended within {expected_within:?}")
            }
            Incident::BreakerOpened { system, since, reason } => {
                write!(f, "`{system}` is down since {since:.0}, and what depends on it waits: ")?;
                f.write_str(reason)
            }
        }
    }
}

impl Serialize for Escalation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Escalation", 13)?;
        fields.serialize_field("id", &self.key)?;
        fields.serialize_field("kind", self.incident.kind())?;
        fields.serialize_field("sentence", &self.to_string())?;
        fields.serialize_field("state", &self.state)?;
        fields.serialize_field("raised_at", &self.raised_at)?;
        fields.serialize_field("task", &self.incident.task())?;
        fields.serialize_field("task_type", &self.task_type)?;
        fields.serialize_field("step", &self.step)?;
        let (attempt, failure) = self.incident.failure().unzip();
        fields.serialize_field("attempt", &attempt)?;
        fields.serialize_field("failure", &failure)?;
        fields.serialize_field("system", &self.incident.system())?;
        fields.serialize_field("acknowledged", &self.acknowledged)?;
        fields.serialize_field("resolved", &self.resolved)?;
        fields.end()
    }
}
