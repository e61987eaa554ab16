//! Fifth: tell the customer. An order is not lost to an e-mail: in the YAML file this step has
//! `on_failure: continue`.

use std::fmt::Write as _;

use async_trait::async_trait;
use serde::Serialize;
use tasker::{StepContext, StepError, StepHandler, StepResult};

use super::create_order::PlacedOrder;
use crate::checkout::{Checkout, PricedItem, ValidatedCart};
use crate::mailer::{Mail, MailError, Mailer};

/// Sends the confirmation.
pub(crate) struct SendConfirmation {
    pub(crate) mailer: Mailer,
}

#[derive(Serialize)]
struct Confirmation<'a> {
    sent_to: &'a str,
    message_id: String,
}

#[async_trait]
impl StepHandler for SendConfirmation {
    async fn process(&self, step: StepContext) -> StepResult {
        let customer = step.context::<Checkout>()?.customer_info;
        let cart: ValidatedCart = step.result_of("validate_cart")?;
        let order: PlacedOrder = step.result_of("create_order")?;
        let mail = Mail {
            to: &customer,
            reference: &order.order_number,
            subject: format!("Your order {}", order.order_number),
            text: text(&customer.name, &cart.items, &order),
            html: html(&customer.name, &cart.items, &order),
        };
        let message_id = self.mailer.send(step.idempotency_key(), mail).await?;
        step.complete(&Confirmation { sent_to: &customer.email, message_id })
    }
}

fn text(name: &str, items: &[PricedItem], order: &PlacedOrder) -> String {
    let mut text = format!("Dear {name},\n\nthank you for your order {}.\n\n", order.order_number);
    for PricedItem { quantity, name, line_total, .. } in items {
        let _ = writeln!(text, "{quantity:>4} x {name:<30} {line_total:>10}");
    }
    let _ = write!(text, "\n       {:<30} {:>10}\n\nThe shop\n", "Total", order.total_amount);
    text
}

fn html(name: &str, items: &[PricedItem], order: &PlacedOrder) -> String {
    let number = &order.order_number;
    let mut html = format!(
        "<p>Dear {},</p><p>thank you for your order <b>{number}</b>.</p><table>",
        escape(name)
    );
    for PricedItem { quantity, name, line_total, .. } in items {
        let name = escape(name);
        let _ = write!(html, "<tr><td>{quantity} × {name}</td><td>{line_total}</td></tr>");
    }
    let total = order.total_amount;
    let _ = write!(html, "<tr><th>Total</th><th>{total}</th></tr></table><p>The shop</p>");
    html
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl From<MailError> for StepError {
    fn from(error: MailError) -> Self {
        const CODE: &str = "MAIL_NOT_SENT";
        if error.may_pass() {
            Self::retryable(error.to_string()).with_code(CODE)
        } else {
            Self::permanent(CODE, error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::unwrap_used)]

    use super::*;
    use crate::money::Money;

    #[test]
    fn a_name_cannot_write_html_into_the_mail() {
        let order = PlacedOrder {
            order_id: 1,
            order_number: "ORD-20260309-0A1B2C3D".into(),
            total_amount: Money::from_cents(10_000),
        };
        let mail = html("<script>", &[], &order);
        assert!(mail.contains("&lt;script&gt;") && !mail.contains("<script>"), "{mail}");
    }
}
