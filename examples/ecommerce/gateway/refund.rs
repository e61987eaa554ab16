//! Calling a payment off, whatever has become of it, so that the customer has paid nothing.

use serde::{Deserialize, Serialize};
use sqlx::Row;

use super::outage::Call;
use super::{Gateway, GatewayError, payment_id};
use crate::money::Money;

/// A payment that was called off.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Refund {
    pub(crate) payment_id: String,
    /// What was given back: nothing if nothing had been taken.
    pub(crate) amount_refunded: Money,
}

impl Gateway {
    /// Calls a payment off for good, however far it is.
    ///
    /// - Money that was taken is given back, once: a repeat finds it given back.
    /// - Money that was set aside is set free.
    /// - A request that the bank has not answered, or that the gateway has yet to hear of, is put
    ///   on record as cancelled: should the charge arrive late, it finds
    ///   [`GatewayError::CalledOff`].
    ///
    /// So it does not matter whether a refund overtakes the charge that it is for.
    pub(crate) async fn refund(&self, key: &str) -> Result<Refund, GatewayError> {
        let call = self.line.begin("refund").await?;
        let answer = self.call_off(&call, key).await;
        call.end(answer).await
    }

    async fn call_off(&self, call: &Call, key: &str) -> Result<Refund, GatewayError> {
        call.connect()?;
        call.wait().await;
        let payment = sqlx::query(
            "INSERT INTO payments
                 (idempotency_key, payment_id, reference, amount, card, state, requests)
             VALUES (?, ?, ?, '0.00', '', 'cancelled', 0)
             ON CONFLICT (idempotency_key) DO UPDATE SET
                 refunds = refunds + (state = 'captured'),
                 state = CASE WHEN state IN ('captured', 'refunded')
                     THEN 'refunded' ELSE 'cancelled' END
             RETURNING payment_id, amount, state",
        )
        .bind(key)
        .bind(payment_id(key))
        .bind(&self.reference)
        .fetch_one(&self.ledger)
        .await?;
        let amount_refunded = match payment.get("state") {
            "refunded" => Money::parse(payment.get("amount")).unwrap_or_default(),
            _ => Money::default(),
        };
        Ok(Refund { payment_id: payment.get("payment_id"), amount_refunded })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::unwrap_used)]

    use super::super::tests::{PRICE, gateway, token};
    use super::*;

    /// What the ledger holds under `key`: state, captures, refunds.
    async fn payment(gateway: &Gateway) -> (String, i64, i64) {
        let held = "SELECT state, captures, refunds FROM payments WHERE idempotency_key = 'key'";
        sqlx::query_as(held).fetch_one(&gateway.ledger).await.expect("a payment")
    }

    #[tokio::test]
    async fn twenty_refunds_give_the_money_back_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let gateway = gateway(&folder).await;
        let visa = token("test_success_visa");
        gateway.authorise("key", &visa, PRICE).await.expect("granted");
        gateway.capture("key", &visa).await.expect("taken");
        let refunds = (0..20).map(|_| {
            let gateway = gateway.clone();
            tokio::spawn(async move { gateway.refund("key").await })
        });
        let refunds: Vec<_> = refunds.collect();
        for refund in refunds {
            let refund = refund.await.expect("no panic").expect("refunded");
            assert_eq!(refund.amount_refunded, PRICE);
        }
        assert_eq!(payment(&gateway).await, ("refunded".into(), 1, 1));
    }

    #[tokio::test]
    async fn a_payment_that_was_called_off_is_refused_however_far_it_was() {
        let visa = token("test_success_visa");
        for far in ["never heard of", "authorised", "captured"] {
            let folder = tempfile::tempdir().expect("a folder");
            let gateway = gateway(&folder).await;
            if far != "never heard of" {
                gateway.authorise("key", &visa, PRICE).await.expect("granted");
            }
            if far == "captured" {
                gateway.capture("key", &visa).await.expect("taken");
            }
            let refund = gateway.refund("key").await.expect("called off");
            let expected = if far == "captured" { PRICE } else { Money::default() };
            assert_eq!(refund.amount_refunded, expected, "{far}");
            assert_eq!(gateway.refund("key").await.expect("a repeat"), refund, "{far}");

            let late = gateway.authorise("key", &visa, PRICE).await;
            assert!(matches!(late, Err(GatewayError::CalledOff)), "{far}: {late:?}");
            let late = gateway.capture("key", &visa).await;
            assert!(matches!(late, Err(GatewayError::CalledOff)), "{far}: {late:?}");
            gateway.void("key").await.expect("nothing to void");
            let (_, captures, refunds) = payment(&gateway).await;
            assert_eq!(captures, refunds, "{far}");
        }
    }

    #[tokio::test]
    async fn a_refund_overtakes_a_charge_that_hangs_at_the_bank() {
        let folder = tempfile::tempdir().expect("a folder");
        let gateway = gateway(&folder).await;
        gateway.note_request("key", &token("test_hang_visa"), PRICE).await.expect("asked");
        gateway.refund("key").await.expect("called off");
        let late = gateway.grant("key", PRICE).await;
        assert!(matches!(late, Err(GatewayError::CalledOff)), "{late:?}");
        assert_eq!(payment(&gateway).await, ("cancelled".into(), 0, 0));
    }
}
