//! What the shop knows without a workflow: products, orders, and whether it is well.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use tasker::TaskId;
use tracing::error;

use super::Web;
use super::error::ApiError;
use crate::catalogue::PRODUCTS;
use crate::money::Money;
use crate::orders::{Order, OrdersError};

#[derive(Serialize)]
pub(super) struct Listed {
    product_id: u32,
    name: &'static str,
    price: Money,
    available: u32,
}

/// `GET /products`
pub(super) async fn products(State(web): State<Web>) -> Result<Json<Vec<Listed>>, ApiError> {
    let mut listed = Vec::with_capacity(PRODUCTS.len());
    for product in PRODUCTS {
        listed.push(Listed {
            product_id: product.id,
            name: product.name,
            price: product.price,
            available: web.inventory.available(product.id).await?,
        });
    }
    Ok(Json(listed))
}

/// `GET /orders/:id`, by id or by number
pub(super) async fn order(
    State(web): State<Web>,
    order: Result<Path<String>, PathRejection>,
) -> Result<Json<Order>, ApiError> {
    let Path(order) = order.map_err(|_| ApiError::order_not_found())?;
    let found = web.orders.find(&order).await?;
    found.map(Json).ok_or_else(ApiError::order_not_found)
}

/// `GET /health/live`: the process runs.
pub(super) async fn live() -> Json<Value> {
    Json(json!({ "status": "live" }))
}

/// `GET /health/ready`: the databases answer.
pub(super) async fn ready(State(web): State<Web>) -> Result<Json<Value>, ApiError> {
    web.tasker.status(TaskId::new()).await?;
    web.inventory.available(PRODUCTS[0].id).await?;
    Ok(Json(json!({ "status": "ready" })))
}

impl From<OrdersError> for ApiError {
    fn from(error: OrdersError) -> Self {
        match error {
            OrdersError::Unavailable(error) => error.into(),
            OrdersError::Unreadable(_) | OrdersError::Withdrawn | OrdersError::NumbersUsedUp => {
                error!(error = &error as &dyn std::error::Error, "an order cannot be read");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong")
            }
        }
    }
}
