//! Third: set the items aside.

use async_trait::async_trait;
use tasker::{StepContext, StepError, StepHandler, StepResult};

use crate::checkout::ValidatedCart;
use crate::inventory::{Inventory, InventoryError};

/// Reserves what was paid for.
///
/// If somebody else was faster and too little is left, the order fails and the payment is refunded.
pub(crate) struct UpdateInventory {
    pub(crate) inventory: Inventory,
}

#[async_trait]
impl StepHandler for UpdateInventory {
    async fn process(&self, step: StepContext) -> StepResult {
        let cart: ValidatedCart = step.result_of("validate_cart")?;
        let reservation = self.inventory.reserve(step.idempotency_key(), &cart.items).await?;
        step.complete(&reservation)
    }
}

impl From<InventoryError> for StepError {
    fn from(error: InventoryError) -> Self {
        match error {
            InventoryError::Insufficient { .. } => {
                Self::permanent("INSUFFICIENT_INVENTORY", error.to_string())
            }
            InventoryError::Released => Self::permanent("RESERVATION_RELEASED", error.to_string()),
            InventoryError::Unavailable(_) | InventoryError::BrokenOff(_) => {
                Self::retryable(error.to_string()).with_code("INVENTORY_UNAVAILABLE")
            }
        }
    }
}
