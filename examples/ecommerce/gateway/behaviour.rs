//! What a payment token makes the simulated gateway do. To add a token, add a line.

use std::time::Duration;

use super::GatewayError;
use crate::checkout::PaymentToken;

/// How the gateway treats a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// The payment goes through.
    Succeed,
    /// The gateway gives up waiting for the bank.
    TimeOut,
    /// The request gets lost on its way.
    NetworkError,
    /// The gateway asks for patience.
    RateLimit,
    /// So many requests for an order fail, then the payment goes through.
    FailFirst(u32),
    /// The gateway never answers.
    Hang,
    /// The gateway takes the money and its answer gets lost on the way.
    LoseAnswer,
    /// The bank says no: not enough funds.
    LackFunds,
    /// The bank says no: not a card.
    NotACard,
    /// The gateway suspects fraud.
    SuspectFraud,
    /// The bank says no and does not say why.
    Decline,
}

const BY_PREFIX: &[(&str, Behaviour)] = &[
    ("test_success_", Behaviour::Succeed),
    ("test_timeout_", Behaviour::TimeOut),
    ("test_network_error", Behaviour::NetworkError),
    ("test_rate_limit_", Behaviour::RateLimit),
    ("test_temp_fail_", Behaviour::FailFirst(2)),
    ("test_outage_", Behaviour::FailFirst(3)),
    ("test_hang_", Behaviour::Hang),
    ("test_lost_answer_", Behaviour::LoseAnswer),
    ("test_insufficient_", Behaviour::LackFunds),
    ("test_invalid_", Behaviour::NotACard),
    ("test_fraud_detected", Behaviour::SuspectFraud),
];

impl Behaviour {
    /// What a token does; one that nobody knows is declined.
    pub(super) fn of(token: &PaymentToken) -> Self {
        let known = BY_PREFIX.iter().find(|(prefix, _)| token.reveal().starts_with(prefix));
        known.map_or(Self::Decline, |(_, behaviour)| *behaviour)
    }

    /// The brand of the simulated card.
    pub(super) fn card(token: &PaymentToken) -> &'static str {
        let brands = ["visa", "mastercard", "amex"];
        brands.into_iter().find(|brand| token.reveal().ends_with(brand)).unwrap_or("card")
    }

    /// The answer to the `request`-th authorisation asked for, for one order.
    pub(super) async fn authorise(self, request: u32) -> Result<(), GatewayError> {
        match self {
            Self::Succeed | Self::LoseAnswer => Ok(()),
            Self::TimeOut => Err(GatewayError::TimedOut),
            Self::NetworkError => Err(GatewayError::Unreachable),
            Self::RateLimit => {
                Err(GatewayError::RateLimited { retry_after: Duration::from_secs(3) })
            }
            Self::FailFirst(failures) if request <= failures => Err(GatewayError::Faulty),
            Self::FailFirst(_) => Ok(()),
            Self::Hang => std::future::pending().await,
            Self::LackFunds => Err(GatewayError::InsufficientFunds),
            Self::NotACard => Err(GatewayError::InvalidCard),
            Self::SuspectFraud => Err(GatewayError::Fraud),
            Self::Decline => Err(GatewayError::Declined),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::unwrap_used)]

    use super::*;

    fn behaviour(token: &str) -> Behaviour {
        Behaviour::of(&serde_json::from_value(token.into()).expect("a token"))
    }

    #[test]
    fn a_token_is_known_by_its_prefix() {
        let rows = [
            ("test_success_visa", Behaviour::Succeed),
            ("test_success_mastercard", Behaviour::Succeed),
            ("test_timeout_gateway", Behaviour::TimeOut),
            ("test_network_error", Behaviour::NetworkError),
            ("test_network_error_dns", Behaviour::NetworkError),
            ("test_rate_limit_gateway", Behaviour::RateLimit),
            ("test_temp_fail_visa", Behaviour::FailFirst(2)),
            ("test_outage_visa", Behaviour::FailFirst(3)),
            ("test_hang_visa", Behaviour::Hang),
            ("test_lost_answer_visa", Behaviour::LoseAnswer),
            ("test_insufficient_funds", Behaviour::LackFunds),
            ("test_invalid_card", Behaviour::NotACard),
            ("test_fraud_detected", Behaviour::SuspectFraud),
        ];
        for (token, expected) in rows {
            assert_eq!(behaviour(token), expected, "{token}");
        }
    }

    #[test]
    fn any_other_token_is_declined() {
        for token in ["tok_visa", "test_", "test_success", "TEST_SUCCESS_VISA", "x"] {
            assert_eq!(behaviour(token), Behaviour::Decline, "{token}");
        }
    }
}
