//! The payment gateway: a simulation of a third party, with a ledger of its own.
//!
//! It knows nothing of orders or steps. Like a real gateway it remembers every request by its
//! idempotency key, so that a repeat, after an answer was lost or the shop was killed, finds the
//! same payment and takes no money twice. What a token does is told by [`Behaviour`]; whether
//! anybody reaches the gateway at all, by its [`Mode`].

mod behaviour;
mod outage;
mod refund;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::{Row, SqlitePool};

use crate::checkout::PaymentToken;
use crate::database;
use crate::money::Money;
use behaviour::Behaviour;
use outage::{Call, Line};
pub(crate) use outage::{Mode, Report};

/// A door to the gateway; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    ledger: SqlitePool,
    line: Line,
    /// What the shop calls the order that the payments asked for are about.
    reference: String,
}

/// A sum that the customer's bank has set aside.
#[derive(Clone, Debug)]
pub(crate) struct Authorisation {
    pub(crate) amount: Money,
}

/// A sum that was taken.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Charge {
    pub(crate) payment_id: String,
    pub(crate) amount_charged: Money,
    pub(crate) card: String,
}

/// Why a payment did not happen, or why nobody knows whether it did.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayError {
    #[error("the payment gateway did not answer in time")]
    TimedOut,
    #[error("the payment gateway could not be reached")]
    Unreachable,
    #[error("the payment gateway is busy, it asks to wait {} s", .retry_after.as_secs())]
    RateLimited { retry_after: Duration },
    #[error("the payment gateway has a fault")]
    Faulty,
    #[error("the payment gateway's answer was lost, the money may have been taken")]
    AnswerLost,
    #[error("the card has not enough funds")]
    InsufficientFunds,
    #[error("the card is not valid")]
    InvalidCard,
    #[error("the payment was refused as fraud")]
    Fraud,
    #[error("the card was declined")]
    Declined,
    #[error("the payment was not authorised")]
    NotAuthorised,
    #[error("the idempotency key was used for another amount")]
    KeyReused,
    #[error("the payment was called off")]
    CalledOff,
    #[error("the payment gateway has lost its ledger for a moment")]
    Ledger(#[from] sqlx::Error),
}

impl GatewayError {
    /// The error's name for programs.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::TimedOut => "GATEWAY_TIMEOUT",
            Self::Unreachable => "GATEWAY_UNREACHABLE",
            Self::RateLimited { .. } => "RATE_LIMITED",
            Self::Faulty | Self::Ledger(_) => "GATEWAY_FAULT",
            Self::AnswerLost => "GATEWAY_ANSWER_LOST",
            Self::InsufficientFunds => "INSUFFICIENT_FUNDS",
            Self::InvalidCard => "INVALID_CARD",
            Self::Fraud => "FRAUD_DETECTED",
            Self::Declined => "CARD_DECLINED",
            Self::NotAuthorised => "PAYMENT_NOT_AUTHORISED",
            Self::KeyReused => "IDEMPOTENCY_KEY_REUSED",
            Self::CalledOff => "PAYMENT_CALLED_OFF",
        }
    }
}

const LEDGER: &str = "
CREATE TABLE IF NOT EXISTS payments (
    idempotency_key TEXT PRIMARY KEY,
    payment_id      TEXT NOT NULL UNIQUE,
    -- the order that it is for, as the shop calls it
    reference       TEXT NOT NULL,
    amount          TEXT NOT NULL,
    card            TEXT NOT NULL,
    -- requested, authorised, captured or voided; for good: refunded or cancelled
    state           TEXT NOT NULL DEFAULT 'requested',
    -- how often an authorisation was asked for
    requests        INTEGER NOT NULL DEFAULT 1,
    -- how often the money was taken: never more than once
    captures        INTEGER NOT NULL DEFAULT 0 CHECK (captures <= 1),
    -- how often it was given back: never more often than it was taken
    refunds         INTEGER NOT NULL DEFAULT 0 CHECK (refunds <= captures)
) STRICT;
";

impl Gateway {
    /// Opens the gateway's ledger; every request takes about `latency`.
    pub(crate) async fn open(ledger: &Path, latency: Duration) -> Result<Self, sqlx::Error> {
        let ledger = database::open_file(ledger, &[LEDGER, outage::TABLES]).await?;
        let line = Line::new(ledger.clone(), latency);
        Ok(Self { ledger, line, reference: String::new() })
    }

    /// The same door, to ask for payments of one order.
    pub(crate) fn about(&self, order: &str) -> Self {
        Self { reference: order.to_owned(), ..self.clone() }
    }

    /// Asks the customer's bank to set an amount aside; no money moves.
    ///
    /// A repeat under the same key gives the same authorisation. One that was voided may be asked
    /// for anew, with another card or for another amount; a payment that was called off may not.
    pub(crate) async fn authorise(
        &self,
        key: &str,
        token: &PaymentToken,
        amount: Money,
    ) -> Result<Authorisation, GatewayError> {
        let call = self.line.begin("authorise").await?;
        let answer = self.ask_the_bank(&call, key, token, amount).await;
        call.end(answer).await
    }

    async fn ask_the_bank(
        &self,
        call: &Call,
        key: &str,
        token: &PaymentToken,
        amount: Money,
    ) -> Result<Authorisation, GatewayError> {
        call.connect()?;
        let noted = self.note_request(key, token, amount).await?;
        call.wait().await;
        // What was granted once stays granted, whatever happens to the answers.
        if let Noted::Asked { requests } = noted {
            Behaviour::of(token).authorise(requests).await?;
            self.grant(key, amount).await?;
        }
        Ok(Authorisation { amount })
    }

    async fn note_request(
        &self,
        key: &str,
        token: &PaymentToken,
        amount: Money,
    ) -> Result<Noted, GatewayError> {
        let noted = sqlx::query(
            "INSERT INTO payments (idempotency_key, payment_id, reference, amount, card)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (idempotency_key) DO UPDATE SET
                 requests = requests + 1,
                 amount = CASE state WHEN 'voided' THEN excluded.amount ELSE amount END,
                 card = CASE WHEN state IN ('requested', 'voided') THEN excluded.card ELSE card END
             RETURNING amount, state, requests
                 + (SELECT coalesce(sum(requests), 0) FROM payments AS other
                    WHERE reference = ?3 AND idempotency_key <> ?1) AS requests",
        )
        .bind(key)
        .bind(payment_id(key))
        .bind(&self.reference)
        .bind(amount.to_string())
        .bind(Behaviour::card(token))
        .fetch_one(&self.ledger)
        .await?;
        match noted.get("state") {
            "refunded" | "cancelled" => Err(GatewayError::CalledOff),
            _ if noted.get::<&str, _>("amount") != amount.to_string() => {
                Err(GatewayError::KeyReused)
            }
            "authorised" | "captured" => Ok(Noted::Granted),
            _ => Ok(Noted::Asked { requests: noted.get("requests") }),
        }
    }

    /// The bank says yes: if the payment was called off in the meantime, too late.
    async fn grant(&self, key: &str, amount: Money) -> Result<(), GatewayError> {
        let granted = sqlx::query(
            "UPDATE payments
             SET state = CASE state WHEN 'captured' THEN 'captured' ELSE 'authorised' END
             WHERE idempotency_key = ? AND amount = ?
                 AND state IN ('requested', 'voided', 'authorised', 'captured')",
        )
        .bind(key)
        .bind(amount.to_string())
        .execute(&self.ledger)
        .await?
        .rows_affected();
        if granted == 1 { Ok(()) } else { Err(self.why_not(key).await?) }
    }

    /// Takes the money that was set aside.
    ///
    /// A repeat under the same key takes nothing more and gives the same charge.
    pub(crate) async fn capture(
        &self,
        key: &str,
        token: &PaymentToken,
    ) -> Result<Charge, GatewayError> {
        let call = self.line.begin("capture").await?;
        let answer = self.take(&call, key, token).await;
        call.end(answer).await
    }

    async fn take(
        &self,
        call: &Call,
        key: &str,
        token: &PaymentToken,
    ) -> Result<Charge, GatewayError> {
        call.connect()?;
        call.wait().await;
        let taken = sqlx::query(
            "UPDATE payments SET state = 'captured', captures = captures + 1
             WHERE idempotency_key = ? AND state = 'authorised'",
        )
        .bind(key)
        .execute(&self.ledger)
        .await?
        .rows_affected();
        if taken == 1 && Behaviour::of(token) == Behaviour::LoseAnswer {
            return Err(GatewayError::AnswerLost);
        }
        let captured = sqlx::query(
            "SELECT payment_id, amount, card FROM payments
             WHERE idempotency_key = ? AND state = 'captured'",
        )
        .bind(key)
        .fetch_optional(&self.ledger)
        .await?;
        let Some(payment) = captured else { return Err(self.why_not(key).await?) };
        Ok(Charge {
            payment_id: payment.get("payment_id"),
            amount_charged: Money::parse(payment.get("amount")).unwrap_or_default(),
            card: payment.get("card"),
        })
    }

    /// Why a payment is not as far as whoever asks thinks.
    async fn why_not(&self, key: &str) -> Result<GatewayError, sqlx::Error> {
        let state: Option<String> =
            sqlx::query_scalar("SELECT state FROM payments WHERE idempotency_key = ?")
                .bind(key)
                .fetch_optional(&self.ledger)
                .await?;
        Ok(match state.as_deref() {
            Some("refunded" | "cancelled") => GatewayError::CalledOff,
            _ => GatewayError::NotAuthorised,
        })
    }

    /// Gives back what was set aside; does nothing to money that was taken.
    pub(crate) async fn void(&self, key: &str) -> Result<(), GatewayError> {
        let call = self.line.begin("void").await?;
        let answer = self.set_free(&call, key).await;
        call.end(answer).await
    }

    async fn set_free(&self, call: &Call, key: &str) -> Result<(), GatewayError> {
        call.connect()?;
        sqlx::query(
            "UPDATE payments SET state = 'voided'
             WHERE idempotency_key = ? AND state = 'authorised'",
        )
        .bind(key)
        .execute(&self.ledger)
        .await?;
        Ok(())
    }

    /// Lets the gateway fail, or lets it be.
    pub(crate) async fn switch(&self, mode: Mode) -> Result<(), sqlx::Error> {
        self.line.switch(mode).await
    }

    /// How the gateway is, and how many calls it has had.
    pub(crate) async fn report(&self) -> Result<Report, sqlx::Error> {
        self.line.report().await
    }
}

/// How far a payment was when an authorisation was asked for.
enum Noted {
    Granted,
    Asked {
        /// How often one was asked for, for the whole order.
        requests: u32,
    },
}

/// The same key gives the same payment, even in a ledger that has lost the row.
fn payment_id(key: &str) -> String {
    let digest = Sha256::digest(key.as_bytes());
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("pay_{hex}")
}
