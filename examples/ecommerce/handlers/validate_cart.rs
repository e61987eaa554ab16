//! First: are these products ours, are there enough of them, and what do they cost?

use async_trait::async_trait;
use tasker::{StepContext, StepError, StepHandler, StepResult};

use crate::catalogue;
use crate::checkout::{CartItem, Checkout, PricedItem, ValidatedCart};
use crate::inventory::Inventory;

/// Looks the cart up in the catalogue; reserves nothing.
pub(crate) struct ValidateCart {
    pub(crate) inventory: Inventory,
}

#[async_trait]
impl StepHandler for ValidateCart {
    async fn process(&self, step: StepContext) -> StepResult {
        let checkout: Checkout = step.context()?;
        let items = price(&checkout.cart_items)?;
        for item in &items {
            self.check_stock(item).await?;
        }
        let total = items.iter().map(|item| item.line_total).sum();
        step.complete(&ValidatedCart { items, total })
    }
}

impl ValidateCart {
    /// A first look, so that a customer does not pay in vain; the reservation has the last word.
    async fn check_stock(&self, item: &PricedItem) -> Result<(), StepError> {
        let available = self.inventory.available(item.product_id).await.map_err(|_| {
            StepError::retryable("the inventory is not available")
                .with_code("INVENTORY_UNAVAILABLE")
        })?;
        if available >= item.quantity {
            return Ok(());
        }
        let PricedItem { name, quantity, .. } = item;
        let message =
            format!("not enough of `{name}` in stock: {quantity} asked for, {available} left");
        Err(StepError::permanent("INSUFFICIENT_INVENTORY", message))
    }
}

/// Looks up every product; two lines with the same product become one.
fn price(cart: &[CartItem]) -> Result<Vec<PricedItem>, StepError> {
    let mut items: Vec<PricedItem> = Vec::new();
    for CartItem { product_id, quantity } in cart {
        let product = catalogue::find(*product_id).ok_or_else(|| {
            StepError::permanent("PRODUCT_NOT_FOUND", format!("there is no product {product_id}"))
        })?;
        match items.iter_mut().find(|item| item.product_id == *product_id) {
            Some(item) => {
                item.quantity = item.quantity.saturating_add(*quantity);
                item.line_total = product.price * item.quantity;
            }
            None => items.push(PricedItem {
                product_id: *product_id,
                name: product.name.to_owned(),
                quantity: *quantity,
                unit_price: product.price,
                line_total: product.price * *quantity,
            }),
        }
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::unwrap_used)]

    use super::*;
    use crate::money::Money;

    #[test]
    fn lines_with_the_same_product_become_one() {
        let cart = [(1, 2), (2, 1), (1, 1)]
            .map(|(product_id, quantity)| CartItem { product_id, quantity });
        let items = price(&cart).expect("known products");
        let totals: Vec<_> = items.iter().map(|item| (item.quantity, item.line_total)).collect();
        assert_eq!(totals, [(3, Money::from_cents(15_000)), (1, Money::from_cents(7500))]);
    }

    #[test]
    fn an_unknown_product_is_refused_for_good() {
        let refused = price(&[CartItem { product_id: 99, quantity: 1 }]);
        assert!(
            matches!(&refused, Err(StepError::Permanent { code, .. }) if code == "PRODUCT_NOT_FOUND"),
            "{refused:?}"
        );
    }
}
