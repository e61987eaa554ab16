//! Fourth: write the order down and give it its number.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tasker::{StepContext, StepError, StepHandler, StepResult};

use crate::checkout::{Checkout, ValidatedCart};
use crate::gateway::Charge;
use crate::inventory::Reservation;
use crate::money::Money;
use crate::orders::{OrderDetails, Orders, OrdersError};

/// Places the order.
pub(crate) struct CreateOrder {
    pub(crate) orders: Orders,
}

/// The order as the next step and the status page know it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct PlacedOrder {
    pub(crate) order_id: i64,
    pub(crate) order_number: String,
    pub(crate) total_amount: Money,
}

#[async_trait]
impl StepHandler for CreateOrder {
    async fn process(&self, step: StepContext) -> StepResult {
        let cart: ValidatedCart = step.result_of("validate_cart")?;
        let charge: Charge = step.result_of("process_payment")?;
        let reservation: Reservation = step.result_of("update_inventory")?;
        let details = OrderDetails {
            task_id: step.task_id().to_string(),
            customer: step.context::<Checkout>()?.customer_info,
            items: cart.items,
            total_amount: charge.amount_charged,
            payment_id: charge.payment_id,
            reservation_id: reservation.reservation_id,
        };
        let order = self.orders.place(step.idempotency_key(), &details).await?;
        step.complete(&PlacedOrder {
            order_id: order.order_id,
            order_number: order.order_number,
            total_amount: order.details.total_amount,
        })
    }
}

impl From<OrdersError> for StepError {
    fn from(error: OrdersError) -> Self {
        match error {
            OrdersError::Unavailable(_) | OrdersError::NumbersUsedUp => {
                Self::retryable(error.to_string()).with_code("ORDERS_UNAVAILABLE")
            }
            OrdersError::Withdrawn => Self::permanent("ORDER_WITHDRAWN", error.to_string()),
            OrdersError::Unreadable(_) => Self::permanent("ORDER_UNREADABLE", error.to_string()),
        }
    }
}
