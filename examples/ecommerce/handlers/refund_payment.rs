//! Undoes the second step: the customer has paid nothing.

use async_trait::async_trait;
use tasker::{StepContext, StepHandler, StepResult};

use super::undone_key;
use crate::gateway::Gateway;

/// Calls the payment off, however far it is; also one that nobody knows to have been made.
pub(crate) struct RefundPayment {
    pub(crate) gateway: Gateway,
}

#[async_trait]
impl StepHandler for RefundPayment {
    async fn process(&self, step: StepContext) -> StepResult {
        let gateway = self.gateway.about(&step.task_id().to_string());
        let refund = gateway.refund(&undone_key(&step)?).await?;
        step.complete(&refund)
    }
}
