//! The one shape of every error that the shop answers with.

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tasker::store::StoreError;
use tracing::error;

/// An error as the client sees it: a sentence in `error`, and for bad input what is wrong where.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    body: Body,
}

#[derive(Debug, Serialize)]
struct Body {
    /// Left out where the client asks for an order that is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    success: Option<bool>,
    error: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail>,
}

/// What is wrong with one place of a request.
#[derive(Debug, Serialize)]
pub(super) struct Detail {
    /// A JSON pointer into the content of `checkout`.
    pub(super) path: String,
    pub(super) message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        let body = Body { success: Some(false), error: error.into(), details: Vec::new() };
        Self { status, body }
    }

    pub(super) fn order_not_found() -> Self {
        let error = "Order not found".to_owned();
        let body = Body { success: None, error, details: Vec::new() };
        Self { status: StatusCode::NOT_FOUND, body }
    }

    pub(super) fn invalid_checkout(details: Vec<Detail>) -> Self {
        let mut invalid = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid checkout data");
        invalid.body.details = details;
        invalid
    }

    /// The client did nothing wrong and may come back soon.
    pub(super) fn unavailable(error: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        error!(error = &error as &dyn std::error::Error, "the store of the workflow failed");
        match error {
            StoreError::Unavailable { .. } => Self::unavailable("The shop is busy, try again soon"),
            StoreError::Damaged { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong")
            }
        }
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        error!(error = &error as &dyn std::error::Error, "the shop's database failed");
        Self::unavailable("The shop is busy, try again soon")
    }
}
