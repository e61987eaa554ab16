//! Signatures: HMAC-SHA-256 of the time, a full stop and the body.

use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;

/// A key that is never shown.
#[derive(Clone)]
pub(super) struct Secret(Hmac<Sha256>);

impl Secret {
    /// `None` if it is empty.
    pub(super) fn new(secret: &[u8]) -> Option<Self> {
        if secret.is_empty() {
            return None;
        }
        Hmac::new_from_slice(secret).ok().map(Self)
    }

    /// The value of the signature's header.
    pub(super) fn sign(&self, at: i64, body: &[u8]) -> String {
        let mut header = format!("t={at},v1=");
        for byte in self.digest(at, body).finalize().into_bytes() {
            // Writing to a string does not fail.
            let _ = write!(header, "{byte:02x}");
        }
        header
    }

    fn digest(&self, at: i64, body: &[u8]) -> Hmac<Sha256> {
        self.0.clone().chain_update(at.to_string()).chain_update(b".").chain_update(body)
    }
}

/// Checks deliveries of a [`Webhook`](super::Webhook), on the side that receives them.
///
/// ```
/// use tasker::webhook::Verifier;
///
/// let verifier = Verifier::new("from the environment, and long").ok_or("no secret")?;
/// // The header `tasker-signature`, and the body as it came.
/// let refused = verifier.verify("t=0,v1=00", b"{}").unwrap_err();
/// assert_eq!(refused.to_string(), "the delivery is too old, or of the future");
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Verifier {
    secret: Secret,
    max_age: Duration,
}

/// Why a delivery is not to be trusted: answer it with a status of 4xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// The header is not a signature.
    #[error("the signature cannot be read")]
    Malformed,
    /// It was signed too long ago, so perhaps it was recorded and sent again; or a clock is wrong.
    #[error("the delivery is too old, or of the future")]
    Stale,
    /// It was signed with another secret, or changed on its way.
    #[error("the signature is not that of the body")]
    Mismatch,
}

impl Verifier {
    /// A verifier that knows the sender's secret; `None` if that is empty.
    pub fn new(secret: impl AsRef<[u8]>) -> Option<Self> {
        let secret = Secret::new(secret.as_ref())?;
        Some(Self { secret, max_age: Duration::from_secs(300) })
    }

    /// How far the time of sending may lie from this machine's clock; five minutes by default.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Checks a delivery that has just come.
    ///
    /// It takes as long for a signature that is nearly right as for any other. A delivery that is
    /// right may still be the second of its kind: its `id` says so.
    ///
    /// # Errors
    /// See [`Unverified`].
    pub fn verify(&self, signature: &str, body: &[u8]) -> Result<(), Unverified> {
        self.verify_at(signature, body, Timestamp::now())
    }

    /// Checks a delivery that came at a time.
    ///
    /// # Errors
    /// See [`Unverified`].
    pub fn verify_at(
        &self,
        signature: &str,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), Unverified> {
        let parts = || signature.split(',').filter_map(|part| part.trim().split_once('='));
        let at = parts().find(|(name, _)| *name == "t").and_then(|(_, at)| at.parse::<i64>().ok());
        let at = at.ok_or(Unverified::Malformed)?;
        let mut signed = parts().filter(|(name, _)| *name == "v1").peekable();
        signed.peek().ok_or(Unverified::Malformed)?;
        if now.as_second().abs_diff(at) > self.max_age.as_secs() {
            return Err(Unverified::Stale);
        }
        let digest = self.secret.digest(at, body);
        let mut digests = signed.filter_map(|(_, hex)| bytes(hex));
        // `verify_slice` takes as long wherever the first difference is.
        let right = digests.any(|signed| digest.clone().verify_slice(&signed).is_ok());
        if right { Ok(()) } else { Err(Unverified::Mismatch) }
    }
}

/// The bytes that are written as hexadecimal digits.
fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<_>> = hex.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    // Two digits make less than 256.
    Some(digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("max_age", &self.max_age).finish_non_exhaustive()
    }
}
