//! An action as it is written down, before anybody knows whether it is one.

use serde::{Deserialize, Deserializer};

use super::{Action, ActionKind};
use crate::Json;

/// An [`Action`] as a request, a form or a command line has it: its kind, and the fields that were
/// given. [`Action`] is what comes of it when they are exactly the fields that the kind needs.
///
/// ```
/// use tasker_core::{Action, ActionForm, ActionKind};
///
/// let mut form = ActionForm::of(ActionKind::SkipStep);
/// let fault = Action::try_from(form.clone()).unwrap_err();
/// assert_eq!(fault.to_string(), "`skip_step` needs the field `step`");
/// form.step = Some("send".to_owned());
/// assert_eq!(Action::try_from(form)?, Action::SkipStep { step: "send".to_owned() });
/// # Ok::<(), tasker_core::ActionFault>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionForm {
    /// Which kind of action.
    pub action: ActionKind,
    /// The step that it is about.
    #[serde(default)]
    pub step: Option<String>,
    /// The result of the step; `null` is one like any other.
    #[serde(default, deserialize_with = "given")]
    pub result: Option<Json>,
    /// The input of the task.
    #[serde(default, deserialize_with = "given")]
    pub context: Option<Json>,
    /// How often the step is attempted.
    #[serde(default)]
    pub limit: Option<u32>,
}

/// The fields of an [`ActionForm`] are not those of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionFault {
    /// One that the kind needs was not given.
    #[error("`{kind}` needs the field `{field}`")]
    Lacks {
        /// The kind.
        kind: ActionKind,
        /// The field.
        field: &'static str,
    },
    /// One was given that the kind does not have.
    #[error("`{kind}` takes no field `{field}`")]
    Takes {
        /// The kind.
        kind: ActionKind,
        /// The field.
        field: &'static str,
    },
}

/// Whatever stands there is given, `null` too.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

impl ActionForm {
    /// A form of which nothing is filled in.
    pub const fn of(action: ActionKind) -> Self {
        Self { action, step: None, result: None, context: None, limit: None }
    }
}

impl TryFrom<ActionForm> for Action {
    type Error = ActionFault;

    fn try_from(form: ActionForm) -> Result<Self, ActionFault> {
        let ActionForm { action: kind, mut step, mut result, mut context, mut limit } = form;
        let lacks = |field| ActionFault::Lacks { kind, field };
        let mut step_of = || step.take().ok_or(lacks("step"));
        let action = match kind {
            ActionKind::Cancel => Self::Cancel,
            ActionKind::Retry => Self::Retry,
            ActionKind::Pause => Self::Pause,
            ActionKind::Resume => Self::Resume,
            ActionKind::Compensate => Self::Compensate,
            ActionKind::Resolve => Self::Resolve,
            ActionKind::RetryStep => Self::RetryStep { step: step_of()? },
            ActionKind::RetryFrom => Self::RetryFrom { step: step_of()? },
            ActionKind::SkipStep => Self::SkipStep { step: step_of()? },
            ActionKind::ResolveStep => {
                let step = step_of()?;
                Self::ResolveStep { step, result: result.take().ok_or(lacks("result"))? }
            }
            ActionKind::SetRetryLimit => {
                let step = step_of()?;
                Self::SetRetryLimit { step, limit: limit.take().ok_or(lacks("limit"))? }
            }
            ActionKind::EditContext => {
                Self::EditContext { context: context.take().ok_or(lacks("context"))? }
            }
        };
        let left = [
            ("step", step.is_some()),
            ("result", result.is_some()),
            ("context", context.is_some()),
            ("limit", limit.is_some()),
        ];
        match left.into_iter().find(|(_, is_left)| *is_left) {
            Some((field, _)) => Err(ActionFault::Takes { kind, field }),
            None => Ok(action),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Action, ActionForm, ActionKind};
    use crate::Json;

    /// What is needed of `fields`, and no more, makes an action of each kind.
    #[test]
    fn a_form_with_exactly_the_fields_of_its_kind_is_an_action() {
        for kind in ActionKind::ALL {
            let mut made = 0;
            for given in 0..16 {
                let is_given = |bit: u32| given & (1 << bit) != 0;
                let form = ActionForm {
                    action: kind,
                    step: is_given(0).then(|| "ship".to_owned()),
                    result: is_given(1).then(Json::null),
                    context: is_given(2).then(Json::null),
                    limit: is_given(3).then_some(3),
                };
                let Ok(action) = Action::try_from(form) else { continue };
                made += 1;
                assert_eq!((action.kind(), action.step().is_some()), (kind, is_given(0)));
                let text = serde_json::to_string(&action).unwrap();
                assert_eq!(serde_json::from_str::<Action>(&text).unwrap(), action, "{text}");
            }
            assert_eq!(made, 1, "{kind}");
        }
    }

    #[test]
    fn documents_are_kept_as_they_were_written() {
        let text = r#"{"action":"resolve_step","step":"pay","result":{"paid":100.00,"to":"Elm"}}"#;
        let Action::ResolveStep { result, .. } = serde_json::from_str(text).unwrap() else {
            panic!("it resolves a step")
        };
        assert_eq!(result.as_str(), r#"{"paid":100.00,"to":"Elm"}"#);
    }

    #[test]
    fn what_is_wrong_with_a_request_is_said() {
        for (text, fault) in [
            (r#"{"action":"skip_step"}"#, "`skip_step` needs the field `step`"),
            (r#"{"action":"cancel","limit":3}"#, "`cancel` takes no field `limit`"),
            (r#"{"action":"cancel","stop":1}"#, "unknown field `stop`"),
            (r#"{"action":"explode"}"#, "unknown variant `explode`"),
        ] {
            let told = serde_json::from_str::<Action>(text).unwrap_err().to_string();
            assert!(told.starts_with(fault), "{told}");
        }
    }
}
