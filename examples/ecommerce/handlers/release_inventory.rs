//! Undoes the third step: the items are for sale again.

use async_trait::async_trait;
use tasker::{StepContext, StepHandler, StepResult};

use super::undone_key;
use crate::inventory::Inventory;

/// Puts back what was set aside, whether or not anybody knows that it was.
pub(crate) struct ReleaseInventory {
    pub(crate) inventory: Inventory,
}

#[async_trait]
impl StepHandler for ReleaseInventory {
    async fn process(&self, step: StepContext) -> StepResult {
        let release = self.inventory.release(&undone_key(&step)?).await?;
        step.complete(&release)
    }
}
