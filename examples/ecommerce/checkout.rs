//! A checkout as the customer sends it, and what the steps of its order hand on to each other.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::money::Money;

/// The context of an order: the content of `checkout` in the request.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Checkout {
    pub(crate) cart_items: Vec<CartItem>,
    pub(crate) payment_info: PaymentInfo,
    pub(crate) customer_info: CustomerInfo,
}

/// A line of the cart.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct CartItem {
    pub(crate) product_id: u32,
    pub(crate) quantity: u32,
}

/// How the customer pays, and how much the customer agreed to pay.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PaymentInfo {
    pub(crate) token: PaymentToken,
    pub(crate) amount: Money,
}

/// Whom the order is for.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct CustomerInfo {
    pub(crate) email: String,
    pub(crate) name: String,
}

/// What stands for a card at the gateway: whoever has it can charge the customer.
///
/// It has no JSON form and no `Display`, and its `Debug` shows nothing, so that it cannot get into
/// a result, a log line or an error by accident.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct PaymentToken(String);

impl PaymentToken {
    /// The token itself, for the gateway only.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PaymentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PaymentToken(…)")
    }
}

/// What is shown in the place of a payment token.
const SHOWN: &str = "[redacted]";

/// Takes the payment token out of a stored context, wherever the customer wrote it; gives the
/// token that it was, if there was one.
pub(crate) fn redact(context: &mut Value) -> Option<PaymentToken> {
    let place = context.pointer_mut("/payment_info/token")?;
    let Value::String(token) = std::mem::replace(place, Value::from(SHOWN)) else { return None };
    let token = PaymentToken(token);
    for_each_string(context, &mut |text| token.redact_from(text));
    Some(token)
}

impl PaymentToken {
    /// Takes it out of a text into which somebody pasted it. A short one might be part of any word.
    pub(crate) fn redact_from(&self, text: &mut String) {
        if self.0.len() >= 8 && text.contains(&self.0) {
            *text = text.replace(&self.0, SHOWN);
        }
    }

    /// Takes it out of every text in a document.
    pub(crate) fn redact_from_all(&self, document: &mut Value) {
        for_each_string(document, &mut |text| self.redact_from(text));
    }
}

/// Puts what [`redact`] took out back into a context that a person has edited, wherever it comes
/// back as it was shown.
pub(crate) fn restore(edited: &mut Value, stored: &Value) {
    let mut shown = stored.clone();
    redact(&mut shown);
    put_back(edited, &shown, stored);
}

fn put_back(edited: &mut Value, shown: &Value, stored: &Value) {
    match (edited, shown, stored) {
        (Value::String(text), Value::String(shown), Value::String(stored)) if text == shown => {
            text.clone_from(stored);
        }
        (Value::Array(items), Value::Array(shown), Value::Array(stored)) => {
            for ((item, shown), stored) in items.iter_mut().zip(shown).zip(stored) {
                put_back(item, shown, stored);
            }
        }
        (Value::Object(fields), Value::Object(shown), Value::Object(stored)) => {
            for (name, field) in fields {
                if let (Some(shown), Some(stored)) = (shown.get(name), stored.get(name)) {
                    put_back(field, shown, stored);
                }
            }
        }
        _ => {}
    }
}

/// Visits every string in a JSON value, keys excepted.
fn for_each_string(value: &mut Value, visit: &mut dyn FnMut(&mut String)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter_mut().for_each(|item| for_each_string(item, visit)),
        Value::Object(fields) => fields.values_mut().for_each(|item| for_each_string(item, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What `validate_cart` concludes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ValidatedCart {
    pub(crate) items: Vec<PricedItem>,
    pub(crate) total: Money,
}

/// A line of a cart that was checked against the catalogue.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct PricedItem {
    pub(crate) product_id: u32,
    pub(crate) name: String,
    pub(crate) quantity: u32,
    pub(crate) unit_price: Money,
    pub(crate) line_total: Money,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::unwrap_used)]

    use serde_json::json;
    use tasker::{Json, TaskTemplate};

    use super::*;

    fn checkout(token: &str) -> Value {
        json!({
            "cart_items": [{"product_id": 1, "quantity": 2}],
            "payment_info": {"token": token, "amount": 100.00},
            "customer_info": {"email": "test@example.com", "name": format!("{token} Customer")},
        })
    }

    #[test]
    fn an_amount_has_whole_cents() {
        let template = TaskTemplate::from_yaml(include_str!("config/order_processing.yaml"));
        let template = template.expect("a workflow");
        let taken = |amount: &str| {
            let mut written = checkout("test_success_visa");
            written["payment_info"]["amount"] = serde_json::from_str(amount).expect("a number");
            template.check_context(&Json::from(written))
        };
        for amount in ["100.00", "0.1", "0.01", "75.5", "19.99", "1e2", "1234567.89", "9999999.99"]
        {
            assert!(taken(amount).is_ok(), "{amount}");
        }
        for amount in ["0.001", "99.999", "0.015", "100.001", "1234567.891", "9999999.999"] {
            let faults = taken(amount).expect_err(amount);
            assert_eq!(faults[0].pointer, "/payment_info/amount", "{amount}");
        }
        // All the way up in steps that meet every last digit.
        for cents in (1_u64..=1_000_000_000).step_by(99_991) {
            let amount = format!("{}.{:02}", cents / 100, cents % 100);
            assert!(taken(&amount).is_ok(), "{amount}");
        }
    }

    #[test]
    fn a_token_shows_in_no_debug_output() {
        let checkout: Checkout =
            serde_json::from_value(checkout("test_success_visa")).expect("a checkout");
        let shown = format!("{:?}", checkout.payment_info);
        assert!(!shown.contains("test_success_visa"), "{shown}");
    }

    #[test]
    fn a_redacted_context_holds_the_token_nowhere() {
        let mut context = checkout("test_success_visa");
        redact(&mut context);
        assert_eq!(context["payment_info"]["token"], "[redacted]");
        assert!(!context.to_string().contains("test_success_visa"), "{context}");
    }

    #[test]
    fn a_token_that_was_not_shown_survives_an_edit() {
        let mut stored = checkout("test_success_visa");
        stored["customer_info"]["name"] = "test_success_visa Smith".into();
        let mut edited = stored.clone();
        redact(&mut edited);
        edited["customer_info"]["email"] = "mended@example.com".into();
        restore(&mut edited, &stored);
        let mut expected = stored.clone();
        expected["customer_info"]["email"] = "mended@example.com".into();
        assert_eq!(edited, expected);

        edited["payment_info"]["token"] = "test_success_amex".into();
        restore(&mut edited, &stored);
        assert_eq!(edited["payment_info"]["token"], "test_success_amex");
    }

    #[test]
    fn redacting_a_short_token_leaves_other_words_alone() {
        let mut context = checkout("e");
        redact(&mut context);
        assert_eq!(context["payment_info"]["token"], "[redacted]");
        assert_eq!(context["customer_info"]["email"], "test@example.com");
    }
}
