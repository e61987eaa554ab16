//! The five steps of an order, what undoes three of them, one file each, and what they need to do
//! their work.

mod create_order;
mod process_payment;
mod refund_payment;
mod release_inventory;
mod send_confirmation;
mod update_inventory;
mod validate_cart;
mod withdraw_order;

pub(crate) use create_order::PlacedOrder;
use tasker::{StepContext, StepError, TaskTemplate, Workflow};

use crate::gateway::Gateway;
use crate::inventory::Inventory;
use crate::mailer::Mailer;
use crate::orders::Orders;

/// What the steps work with.
#[derive(Clone, Debug)]
pub(crate) struct Shop {
    pub(crate) gateway: Gateway,
    pub(crate) inventory: Inventory,
    pub(crate) orders: Orders,
    pub(crate) mailer: Mailer,
}

/// The workflow of an order: the names here are the `handler_class`es of the YAML file.
pub(crate) fn process_order(template: TaskTemplate, shop: &Shop) -> Workflow {
    let Shop { gateway, inventory, orders, mailer } = shop.clone();
    Workflow::new(template)
        .step("ValidateCart", validate_cart::ValidateCart { inventory: inventory.clone() })
        .step("ProcessPayment", process_payment::ProcessPayment { gateway: gateway.clone() })
        .step("RefundPayment", refund_payment::RefundPayment { gateway })
        .step("UpdateInventory", update_inventory::UpdateInventory { inventory: inventory.clone() })
        .step("ReleaseInventory", release_inventory::ReleaseInventory { inventory })
        .step("CreateOrder", create_order::CreateOrder { orders: orders.clone() })
        .step("WithdrawOrder", withdraw_order::WithdrawOrder { orders })
        .step("SendConfirmation", send_confirmation::SendConfirmation { mailer })
}

/// The key under which the step did what is to be undone, or may have done it.
fn undone_key(step: &StepContext) -> Result<String, StepError> {
    let misplaced = || {
        let message = "this handler undoes a step: name it as its compensate_with";
        StepError::permanent("NOTHING_TO_UNDO", message)
    };
    step.undone_key().ok_or_else(misplaced)
}
