//! Amounts of money: decimal, never binary floating point.
//!
//! In JSON an amount is a number with two decimals; a number or a string is read.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Mul};

use rust_decimal::{Decimal, RoundingStrategy};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// An amount in the shop's one currency, exact.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Money(Decimal);

impl Money {
    /// An amount from its smallest unit: `from_cents(5000)` is 50.00.
    pub(crate) const fn from_cents(cents: u32) -> Self {
        Self(Decimal::from_parts(cents, 0, 0, false, 2))
    }

    /// Reads `100`, `100.00` or `1e2`; `None` if it is no decimal number.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let plain = text.parse().ok();
        plain.or_else(|| Decimal::from_scientific(text).ok()).map(Self)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An amount of more than two decimals is never charged, only compared: show it as it is.
        let shown = self.0.round_dp_with_strategy(2, RoundingStrategy::MidpointNearestEven);
        if shown == self.0 { write!(f, "{shown:.2}") } else { self.0.fmt(f) }
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Add for Money {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Mul<u32> for Money {
    type Output = Self;

    fn mul(self, quantity: u32) -> Self {
        Self(self.0 * Decimal::from(quantity))
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Add::add)
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = RawValue::from_string(self.to_string()).map_err(serde::ser::Error::custom)?;
        number.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The digits as they were written, so that no amount passes through a float.
        let written = Box::<RawValue>::deserialize(deserializer)?;
        let digits = written.get().trim_matches('"');
        Self::parse(digits).ok_or_else(|| D::Error::custom("expected an amount such as 100.00"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::unwrap_used)]

    use super::*;

    #[test]
    fn amounts_compare_as_decimals_whatever_their_notation() {
        for written in ["100", "100.0", "100.00", "1e2", "1.0e2", "\"100.00\""] {
            let read: Money = serde_json::from_str(written).expect(written);
            assert_eq!(read, Money::from_cents(10_000), "{written}");
        }
        let tenths: Money = [Money::from_cents(10), Money::from_cents(20)].into_iter().sum();
        assert_eq!(tenths, serde_json::from_str("0.3").expect("a number"));
    }

    #[test]
    fn an_amount_in_json_is_a_number_with_two_decimals() {
        let total = Money::from_cents(5000) * 2;
        assert_eq!(serde_json::to_string(&total).expect("a number"), "100.00");
    }

    #[test]
    fn a_fraction_of_a_cent_is_neither_lost_nor_equal() {
        let odd = Money::parse("99.999").expect("a number");
        assert_ne!(odd, Money::from_cents(10_000));
        assert_eq!(odd.to_string(), "99.999");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for written in ["\"\"", "\"ten\"", "null", "[1]", "{}"] {
            assert!(serde_json::from_str::<Money>(written).is_err(), "{written}");
        }
    }
}
