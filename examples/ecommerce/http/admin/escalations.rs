//! What calls for a person, and what that person says to it.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tasker::escalation::{Delivery, EscalationState};
use tasker::{EscalateError, Escalation, EscalationQuery, TaskId};

use super::super::Web;
use super::super::body::Body;
use super::super::error::ApiError;
use super::{Person, invalid};

#[derive(Deserialize)]
pub(in super::super) struct Wanted {
    state: Option<EscalationState>,
}

#[derive(Serialize)]
pub(in super::super) struct Escalations {
    now: Timestamp,
    escalations: Vec<Listed>,
}

#[derive(Serialize)]
pub(in super::super) struct Listed {
    key: String,
    state: EscalationState,
    incident: &'static str,
    task_id: Option<TaskId>,
    step: Option<String>,
    system: Option<String>,
    sentence: String,
    raised_at: Timestamp,
    deliveries: BTreeMap<String, Delivery>,
    /// Who has taken note of it or settled it, and what they said.
    actor: Option<String>,
    reason: Option<String>,
}

/// `GET /admin/escalations`
pub(in super::super) async fn escalations(
    State(web): State<Web>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Escalations>, ApiError> {
    let Query(Wanted { state }) =
        wanted.map_err(|_| invalid("`state` is open, acknowledged or resolved"))?;
    let states = match state {
        Some(state) => vec![state],
        None => vec![EscalationState::Open, EscalationState::Acknowledged],
    };
    let mut escalations = Vec::new();
    for state in states {
        let query = EscalationQuery { state: Some(state), ..EscalationQuery::default() };
        escalations.extend(web.tasker.escalations(query).await?.escalations);
    }
    escalations.sort_by_key(|one| std::cmp::Reverse(one.raised_at));
    let escalations = escalations.into_iter().map(Listed::of).collect();
    Ok(Json(Escalations { now: Timestamp::now(), escalations }))
}

/// `POST /admin/escalations/:key/acknowledge`
pub(in super::super) async fn acknowledge(
    State(web): State<Web>,
    key: Result<Path<String>, PathRejection>,
    Body(person): Body<Person>,
) -> Result<Json<Listed>, ApiError> {
    let (key, operator) = (key_of(key)?, person.operator()?);
    Ok(Json(Listed::of(web.tasker.acknowledge(&key, &operator).await?)))
}

/// `POST /admin/escalations/:key/resolve`
pub(in super::super) async fn resolve(
    State(web): State<Web>,
    key: Result<Path<String>, PathRejection>,
    Body(person): Body<Person>,
) -> Result<Json<Listed>, ApiError> {
    let (key, operator) = (key_of(key)?, person.operator()?);
    Ok(Json(Listed::of(web.tasker.resolve_escalation(&key, &operator).await?)))
}

fn key_of(key: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    key.map(|Path(key)| key).map_err(|_| not_found())
}

fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "There is no such escalation")
}

impl Listed {
    fn of(escalation: Escalation) -> Self {
        let sentence = escalation.to_string();
        let Escalation { key, incident, state, step, raised_at, deliveries, .. } = escalation;
        let (actor, reason) = escalation
            .resolved
            .or(escalation.acknowledged)
            .map(|seen| (seen.by, seen.note))
            .unzip();
        Self {
            key,
            state,
            incident: incident.kind(),
            task_id: incident.task(),
            step,
            system: incident.system().cloned(),
            sentence,
            raised_at,
            deliveries,
            actor,
            reason,
        }
    }
}

impl From<EscalateError> for ApiError {
    fn from(error: EscalateError) -> Self {
        match error {
            EscalateError::NotFound(_) => not_found(),
            EscalateError::Store(error) => error.into(),
            EscalateError::Resolved { seen, .. } => {
                let message = format!("{} has settled it: {}", seen.by, seen.note);
                Self::new(StatusCode::CONFLICT, message)
            }
            _ => Self::unavailable("Others are at it as well, try again soon"),
        }
    }
}
