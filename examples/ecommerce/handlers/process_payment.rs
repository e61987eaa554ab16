//! Second: set the money aside, compare it with the cart, take it.

use async_trait::async_trait;
use tasker::{StepContext, StepError, StepHandler, StepResult};

use crate::checkout::{Checkout, ValidatedCart};
use crate::gateway::{Gateway, GatewayError};

/// Charges the customer, once for all attempts.
pub(crate) struct ProcessPayment {
    pub(crate) gateway: Gateway,
}

#[async_trait]
impl StepHandler for ProcessPayment {
    async fn process(&self, step: StepContext) -> StepResult {
        let payment = step.context::<Checkout>()?.payment_info;
        let cart: ValidatedCart = step.result_of("validate_cart")?;
        // The same on every attempt: whatever the gateway did for an earlier one, it finds again.
        let key = step.idempotency_key();

        let gateway = self.gateway.about(&step.task_id().to_string());
        let authorised = gateway.authorise(key, &payment.token, payment.amount).await?;
        if authorised.amount != cart.total {
            gateway.void(key).await?;
            let message = format!(
                "the payment of {} does not match the cart's total of {}",
                authorised.amount, cart.total
            );
            return Err(StepError::permanent("PAYMENT_AMOUNT_MISMATCH", message));
        }
        let charge = gateway.capture(key, &payment.token).await?;
        step.complete(&charge)
    }
}

impl From<GatewayError> for StepError {
    fn from(error: GatewayError) -> Self {
        let code = error.code();
        match error {
            GatewayError::TimedOut
            | GatewayError::Unreachable
            | GatewayError::Faulty
            | GatewayError::Ledger(_)
            | GatewayError::AnswerLost => Self::retryable(error.to_string()).with_code(code),
            GatewayError::RateLimited { retry_after } => {
                Self::retryable(error.to_string()).with_code(code).with_retry_after(retry_after)
            }
            GatewayError::InsufficientFunds
            | GatewayError::InvalidCard
            | GatewayError::Fraud
            | GatewayError::Declined
            | GatewayError::NotAuthorised
            | GatewayError::KeyReused
            | GatewayError::CalledOff => Self::permanent(code, error.to_string()),
        }
    }
}
