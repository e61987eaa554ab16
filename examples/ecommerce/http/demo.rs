//! `/demo/gateway`: lets the simulated gateway fail, and tells how often it was called.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::Web;
use super::body::Body;
use super::error::ApiError;
use crate::gateway::{Mode, Report};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Switch {
    mode: Mode,
}

/// `GET /demo/gateway`
pub(super) async fn gateway(State(web): State<Web>) -> Result<Json<Report>, ApiError> {
    Ok(Json(web.gateway.report().await?))
}

/// `POST /demo/gateway`
pub(super) async fn switch(
    State(web): State<Web>,
    Body(Switch { mode }): Body<Switch>,
) -> Result<Json<Report>, ApiError> {
    web.gateway.switch(mode).await?;
    Ok(Json(web.gateway.report().await?))
}
