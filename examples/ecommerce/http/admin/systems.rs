//! The systems that the orders depend on: whether they are left alone, and who says so.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use tasker::SystemStatus;
use tasker::breaker::BreakerState;

use super::super::Web;
use super::super::body::Body;
use super::super::error::ApiError;
use super::{Person, waiting};

#[derive(Serialize)]
pub(in super::super) struct Systems {
    now: Timestamp,
    systems: Vec<Listed>,
}

#[derive(Serialize)]
pub(in super::super) struct Listed {
    name: String,
    state: BreakerState,
    reason: Option<String>,
    since: Option<Timestamp>,
    next_probe_at: Option<Timestamp>,
    /// How many orders wait for it.
    waiting: usize,
}

/// `GET /admin/systems`
pub(in super::super) async fn systems(State(web): State<Web>) -> Result<Json<Systems>, ApiError> {
    let waiting = waiting(&web).await?;
    let listed = |system: SystemStatus| {
        let waiting = waiting.iter().filter(|(_, name)| *name == system.name).count();
        Listed::of(system, waiting)
    };
    let systems = web.tasker.systems().await?.into_iter().map(listed).collect();
    Ok(Json(Systems { now: Timestamp::now(), systems }))
}

/// `POST /admin/systems/:name/trip`
pub(in super::super) async fn trip(
    State(web): State<Web>,
    name: Result<Path<String>, PathRejection>,
    Body(person): Body<Person>,
) -> Result<Json<Listed>, ApiError> {
    let (name, operator) = (known(&web, name).await?, person.operator()?);
    let system = web.tasker.trip_system(&name, &operator).await?;
    answer(&web, system).await
}

/// `POST /admin/systems/:name/reset`
pub(in super::super) async fn reset(
    State(web): State<Web>,
    name: Result<Path<String>, PathRejection>,
    Body(person): Body<Person>,
) -> Result<Json<Listed>, ApiError> {
    let (name, operator) = (known(&web, name).await?, person.operator()?);
    let system = web.tasker.reset_system(&name, &operator).await?;
    answer(&web, system).await
}

/// The name of a system that some step depends on.
async fn known(web: &Web, name: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    let systems = web.tasker.systems().await?;
    let known = |name: &String| systems.iter().any(|system| system.name == *name);
    name.ok().map(|Path(name)| name).filter(known).ok_or_else(|| {
        ApiError::new(StatusCode::NOT_FOUND, "No step depends on a system of that name")
    })
}

async fn answer(web: &Web, system: SystemStatus) -> Result<Json<Listed>, ApiError> {
    let waiting = waiting(web).await?.iter().filter(|(_, name)| *name == system.name).count();
    Ok(Json(Listed::of(system, waiting)))
}

impl Listed {
    fn of(system: SystemStatus, waiting: usize) -> Self {
        let SystemStatus { name, state, since, reason, next_probe, .. } = system;
        Self { name, state, reason, since, next_probe_at: next_probe, waiting }
    }
}
