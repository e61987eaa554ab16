//! What a request says, or why that cannot be taken: its body, and the key of its repeats.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// A JSON body that is a `T`.
///
/// Only as `application/json`: another site's page cannot send that without asking first.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(JsonRejection::MissingJsonContentType(_)) => {
                let message = "Send the request as Content-Type: application/json";
                Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
            }
            Err(rejection) => Err(ApiError::new(rejection.status(), fault(&rejection.body_text()))),
        }
    }
}

/// What is wrong, without the value that is: it may be a payment token in a wrong place.
fn fault(text: &str) -> String {
    let named = ["missing field", "unknown field"].into_iter().find_map(|what| text.find(what));
    match (text.rsplit_once("expected "), named) {
        (Some((_, expected)), _) => {
            format!("The request is not as it should be: expected {expected}")
        }
        (None, Some(at)) => format!("The request is not as it should be: {}", &text[at..]),
        (None, None) => "The request is not as it should be".to_owned(),
    }
}

/// What makes it safe to send the request again, if it says so.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let text = key.to_str().ok().filter(|text| {
        (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    });
    match (text, keys.next()) {
        (Some(text), None) => Ok(Some(text.to_owned())),
        _ => {
            let message = "Idempotency-Key must be given once: 1 to 255 visible ASCII characters";
            Err(ApiError::new(StatusCode::BAD_REQUEST, message))
        }
    }
}
