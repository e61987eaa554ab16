//! `POST /checkout` and `POST /retry_checkout/:task_id`: what puts a workflow to work.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use lettre::Address;
use serde::Serialize;
use serde_json::Value;
use tasker::{ContextFault, OperateError, Operator, SubmitError, TaskId, TaskRequest};

use super::body::idempotency_key;
use super::error::{ApiError, Detail};
use super::status::OrderStatus;
use super::{OrderTask, Web};

#[derive(Serialize)]
struct Accepted {
    success: bool,
    task_id: TaskId,
    status: &'static str,
    checkout_url: String,
}

#[derive(Serialize)]
struct Retried {
    success: bool,
    message: &'static str,
    status: &'static str,
    task_id: TaskId,
}

/// `POST /checkout`: from the answer on the order is safe, whatever happens to the shop.
pub(super) async fn submit(
    State(web): State<Web>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let key = idempotency_key(&headers)?;
    let checkout = read(&headers, body)?;
    let mut request = TaskRequest::new("ecommerce/process_order", &checkout)
        .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "The request cannot be stored"))?;
    if let Some(key) = key {
        request = request.idempotency_key(key);
    }
    let receipt = web.tasker.submit(request).await.map_err(refuse)?;
    let status = match web.tasker.status(receipt.id).await {
        Ok(Some(status)) if receipt.already_existed => OrderStatus::word(status.state),
        // The order is taken: that its state cannot be read just now is no reason to say it is not.
        Ok(_) | Err(_) => "processing",
    };
    let checkout_url = format!("/order_status/{}", receipt.id);
    let location = [(LOCATION, checkout_url.clone())];
    let accepted = Accepted { success: true, task_id: receipt.id, status, checkout_url };
    Ok((StatusCode::ACCEPTED, location, Json(accepted)))
}

/// `POST /retry_checkout/:task_id`: goes on with a failed order where it failed; what was undone
/// for it is done anew.
pub(super) async fn retry(
    State(web): State<Web>,
    OrderTask(task_id): OrderTask,
) -> Result<impl IntoResponse, ApiError> {
    let operator = Operator::new("storefront", "the customer asked for another try");
    let status = web.tasker.retry(task_id, &operator).await.map_err(|error| match error {
        OperateError::NotFound(_) => ApiError::order_not_found(),
        OperateError::Refused(_) => {
            let message = "Only a failed order can be tried again";
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message)
        }
        OperateError::Contended => ApiError::unavailable("The order is moving, try again soon"),
        OperateError::Store(error) => error.into(),
    })?;
    let message = "The order is being tried again";
    let status = OrderStatus::word(status.state);
    Ok((StatusCode::ACCEPTED, Json(Retried { success: true, message, status, task_id })))
}

/// The content of `checkout`.
fn read(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Value, ApiError> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(is_json) {
        let message = "Send the checkout as Content-Type: application/json";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "The request is larger than 1 MiB")
        }
        _ => ApiError::new(StatusCode::BAD_REQUEST, "The request broke off"),
    })?;
    let envelope: Value = serde_json::from_slice(&body).map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, format!("The request is not JSON: {error}"))
    })?;
    let fault = |path: &str, message: &str| {
        let detail = Detail { path: path.to_owned(), message: message.to_owned() };
        ApiError::invalid_checkout(vec![detail])
    };
    let Value::Object(mut fields) = envelope else {
        return Err(fault("", "expected an object with the field `checkout`"));
    };
    let checkout = fields.remove("checkout");
    let mut checkout = checkout.ok_or_else(|| fault("", "`checkout` is required"))?;
    if !fields.is_empty() {
        return Err(fault("", "there must be nothing beside `checkout`"));
    }
    // The schema knows what looks like an address; who sends the mail knows what is one.
    let email = checkout.pointer("/customer_info/email").and_then(Value::as_str);
    if email.is_some_and(|email| email.parse::<Address>().is_err()) {
        return Err(fault("/customer_info/email", "this is not an e-mail address"));
    }
    one_notation(&mut checkout);
    Ok(checkout)
}

/// Writes 100.00 as 100, as JSON Schema reads it: a repeat that writes it otherwise is a repeat.
fn one_notation(value: &mut Value) {
    /// Up to here a float is exact.
    const EXACT: f64 = (1_u64 << 53) as f64;
    match value {
        Value::Number(number) => {
            let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < EXACT);
            if let Some(whole) = float.filter(|_| number.is_f64()) {
                *number = (whole as i64).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(one_notation),
        Value::Object(fields) => fields.values_mut().for_each(one_notation),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn refuse(error: SubmitError) -> ApiError {
    match error {
        SubmitError::InvalidContext(faults) => {
            // What is wrong is told without the value, which may be a payment token.
            let told = |ContextFault { pointer, message }| Detail { path: pointer, message };
            ApiError::invalid_checkout(faults.into_iter().map(told).collect())
        }
        SubmitError::Refused(refusal) => {
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, refusal.message)
        }
        SubmitError::IdempotencyConflict { .. } => {
            let message = "This Idempotency-Key was used for another checkout";
            ApiError::new(StatusCode::CONFLICT, message)
        }
        SubmitError::Store(error) => error.into(),
        SubmitError::InvalidKey => {
            ApiError::new(StatusCode::BAD_REQUEST, "The Idempotency-Key is not valid")
        }
        SubmitError::CutOff => ApiError::unavailable("The shop is closing, try again soon"),
        SubmitError::UnknownTask { .. } | SubmitError::AmbiguousTask { .. } => {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_number_in_another_notation_is_the_same_checkout() {
        let mut written =
            serde_json::from_str(r#"{"a": [2.0, 1e2, 0.5, 100.01, 1e300, "2.0"]}"#).unwrap();
        one_notation(&mut written);
        assert_eq!(written, json!({"a": [2, 100, 0.5, 100.01, 1e300, "2.0"]}));
    }

    #[test]
    fn only_json_is_taken_for_json() {
        for taken in ["application/json", "Application/JSON; charset=utf-8", " application/json "] {
            assert!(is_json(taken), "{taken}");
        }
        for refused in ["", "text/plain", "application/jsonp", "application/x-json"] {
            assert!(!is_json(refused), "{refused}");
        }
    }
}
