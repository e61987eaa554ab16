//! Undoes the fourth step: the order is void, and stays on record.

use async_trait::async_trait;
use tasker::{StepContext, StepHandler, StepResult};

use super::undone_key;
use crate::orders::Orders;

/// Withdraws the order, whether or not anybody knows that it was placed.
pub(crate) struct WithdrawOrder {
    pub(crate) orders: Orders,
}

#[async_trait]
impl StepHandler for WithdrawOrder {
    async fn process(&self, step: StepContext) -> StepResult {
        let withdrawal = self.orders.withdraw(&undone_key(&step)?).await?;
        step.complete(&withdrawal)
    }
}
