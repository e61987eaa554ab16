//! The shop on the web: its routes, and the rules that hold for every one of them.

mod admin;
mod body;
mod checkout;
mod demo;
mod error;
mod events;
mod page;
mod status;
mod storage;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Request};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tasker::{TaskId, Tasker};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::TraceLayer;

use crate::gateway::Gateway;
use crate::handlers::Shop;
use crate::inventory::Inventory;
use crate::orders::Orders;
use error::ApiError;

const BODY_LIMIT: usize = 1024 * 1024;
/// Less than the five seconds in which whoever asks hears something, be it 503.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
const WATCHERS: usize = 256;

/// What the routes work with; cheap to clone.
#[derive(Clone)]
pub(crate) struct Web {
    pub(crate) tasker: Tasker,
    pub(crate) gateway: Gateway,
    pub(crate) inventory: Inventory,
    pub(crate) orders: Orders,
    /// Cancelled when the shop closes: whoever is watching an order is let go.
    pub(crate) closing: CancellationToken,
    watchers: Arc<Semaphore>,
}

impl Web {
    pub(crate) fn new(tasker: Tasker, shop: Shop, closing: CancellationToken) -> Self {
        let Shop { gateway, inventory, orders, .. } = shop;
        let watchers = Arc::new(Semaphore::new(WATCHERS));
        Self { tasker, gateway, inventory, orders, closing, watchers }
    }
}

/// Every route of the shop.
pub(crate) fn routes(web: Web) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/assets/style.css", get(page::style))
        .route("/assets/app.js", get(page::script))
        .route("/admin", get(page::admin))
        .route("/assets/admin.css", get(page::admin_style))
        .route("/assets/admin.js", get(page::admin_script))
        .route("/admin/tasks", get(admin::tasks))
        .route("/admin/tasks/retry", post(admin::retry_many))
        .route("/admin/tasks/{task_id}/actions", post(admin::act))
        .route("/admin/systems", get(admin::systems))
        .route("/admin/systems/{name}/trip", post(admin::trip))
        .route("/admin/systems/{name}/reset", post(admin::reset))
        .route("/admin/escalations", get(admin::escalations))
        .route("/admin/escalations/{key}/acknowledge", post(admin::acknowledge))
        .route("/admin/escalations/{key}/resolve", post(admin::resolve))
        .route("/demo/gateway", get(demo::gateway).post(demo::switch))
        .route("/products", get(storage::products))
        .route("/orders/{order}", get(storage::order))
        .route("/checkout", post(checkout::submit))
        .route("/retry_checkout/{task_id}", post(checkout::retry))
        .route("/order_status/{task_id}", get(status::order_status))
        .route("/order_status/{task_id}/events", get(events::watch))
        .route("/workflow_details/{task_id}", get(status::workflow_details))
        .route("/health/live", get(storage::live))
        .route("/health/ready", get(storage::ready))
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "There is nothing here"))
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "This address does not take that method")
        })
        .layer(middleware::from_fn(give_up_late))
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong").into_response()
        }))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(default_header(CACHE_CONTROL, "no-store"))
        .layer(default_header(
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ))
        .layer(default_header(X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(default_header(REFERRER_POLICY, "no-referrer"))
        .layer(TraceLayer::new_for_http())
        .with_state(web)
}

fn default_header(
    name: axum::http::HeaderName,
    value: &'static str,
) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

/// Answers in time, whatever the database or a slow client does.
async fn give_up_late(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await;
    answer.unwrap_or_else(|_| {
        ApiError::unavailable("The shop takes too long to answer").into_response()
    })
}

/// The id of an order's task in the address; one that cannot be is an order that is not there.
struct OrderTask(TaskId);

impl<S: Send + Sync> FromRequestParts<S> for OrderTask {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let id = path.ok().and_then(|Path(text)| text.parse().ok());
        id.map(Self).ok_or_else(ApiError::order_not_found)
    }
}
