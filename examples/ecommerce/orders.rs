//! The orders that were placed.
//!
//! An order is known by its idempotency key: a repeat finds the order and its number, made when it
//! was made first, be that yesterday.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::checkout::{CustomerInfo, PricedItem};
use crate::database::Database;
use crate::money::Money;

pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS {shop}orders (
    order_id        {identity},
    idempotency_key TEXT NOT NULL UNIQUE,
    order_number    TEXT NOT NULL UNIQUE,
    -- everything else about the order, as JSON
    details         TEXT NOT NULL,
    placed_at       TEXT NOT NULL
){strict};
";

/// The shop's orders; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    database: Database,
}

/// What an order is made from.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct OrderDetails {
    pub(crate) task_id: String,
    pub(crate) customer: CustomerInfo,
    pub(crate) items: Vec<PricedItem>,
    pub(crate) total_amount: Money,
    pub(crate) payment_id: String,
    pub(crate) reservation_id: String,
}

/// An order.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Order {
    pub(crate) order_id: i64,
    pub(crate) order_number: String,
    pub(crate) placed_at: Timestamp,
    #[serde(flatten)]
    pub(crate) details: OrderDetails,
}

/// Orders that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrdersError {
    #[error("the orders are not available")]
    Unavailable(#[from] sqlx::Error),
    #[error("the details of an order cannot be read or written")]
    Unreadable(#[from] serde_json::Error),
    #[error("no free order number for today")]
    NumbersUsedUp,
}

impl Orders {
    /// The orders in a database.
    pub(crate) fn new(database: Database) -> Self {
        Self { database }
    }

    /// Places an order; a repeat under the same key gives the order that is there.
    pub(crate) async fn place(
        &self,
        key: &str,
        details: &OrderDetails,
    ) -> Result<Order, OrdersError> {
        let now = Timestamp::now();
        let today = now.to_zoned(TimeZone::UTC).date();
        let text = serde_json::to_string(details)?;
        // Two keys may share eight hexadecimal digits of their digest: then the next number is
        // tried. One statement decides, so there is no instant at which a kill leaves a half.
        for try_number in 0..16 {
            let placed = self
                .database
                .query(
                    "INSERT INTO {shop}orders (idempotency_key, order_number, details, placed_at)
                     VALUES ($1, $2, $3, $4) ON CONFLICT (idempotency_key) DO NOTHING",
                )
                .bind(key.to_owned())
                .bind(order_number(today, key, try_number))
                .bind(text.clone())
                .bind(now.to_string())
                .execute(self.database.pool())
                .await;
            match placed {
                Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    let row = self
                        .database
                        .query("SELECT * FROM {shop}orders WHERE idempotency_key = $1")
                        .bind(key.to_owned())
                        .fetch_one(self.database.pool())
                        .await?;
                    return read(&row);
                }
            }
        }
        Err(OrdersError::NumbersUsedUp)
    }

    /// The order with an id or a number.
    pub(crate) async fn find(&self, id_or_number: &str) -> Result<Option<Order>, OrdersError> {
        // PostgreSQL has no text with a NUL, and so no order by that name.
        if id_or_number.contains('\0') {
            return Ok(None);
        }
        let row = self
            .database
            .query("SELECT * FROM {shop}orders WHERE order_id = $1 OR order_number = $2")
            .bind(id_or_number.parse::<i64>().unwrap_or(-1))
            .bind(id_or_number.to_owned())
            .fetch_optional(self.database.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }
}

fn read(row: &AnyRow) -> Result<Order, OrdersError> {
    let placed_at: &str = row.get("placed_at");
    Ok(Order {
        order_id: row.get("order_id"),
        order_number: row.get("order_number"),
        placed_at: placed_at
            .parse()
            .map_err(serde::de::Error::custom)
            .map_err(OrdersError::Unreadable)?,
        details: serde_json::from_str(row.get("details"))?,
    })
}

/// `ORD-YYYYMMDD-8HEX`: the day, and eight digits that follow from the key.
fn order_number(day: Date, key: &str, try_number: u32) -> String {
    let digest = Sha256::new().chain_update(key).chain_update(try_number.to_be_bytes()).finalize();
    let hex: String = digest.iter().take(4).map(|byte| format!("{byte:02X}")).collect();
    format!("ORD-{}-{hex}", day.strftime("%Y%m%d"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::unwrap_used)]

    use jiff::civil::date;

    use super::*;

    fn details() -> OrderDetails {
        OrderDetails {
            task_id: "task".into(),
            customer: CustomerInfo { email: "a@example.com".into(), name: "A".into() },
            items: Vec::new(),
            total_amount: Money::from_cents(10_000),
            payment_id: "pay_1".into(),
            reservation_id: "res_1".into(),
        }
    }

    #[test]
    fn an_order_number_follows_from_the_day_and_the_key() {
        let number = order_number(date(2026, 3, 9), "key", 0);
        let hex = number.strip_prefix("ORD-20260309-").expect("the day");
        assert!(hex.len() == 8 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()), "{number}");
        assert_eq!(number, order_number(date(2026, 3, 9), "key", 0));
        assert_ne!(number, order_number(date(2026, 3, 9), "other key", 0));
        assert_ne!(number, order_number(date(2026, 3, 9), "key", 1));
    }

    #[tokio::test]
    async fn a_repeat_gives_the_order_that_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("shop.db");
        let orders = Orders::new(Database::in_file(&file, &[TABLES]).await.expect("a file"));
        let first = orders.place("key", &details()).await.expect("placed");
        let again = orders.place("key", &details()).await.expect("found");
        let other = orders.place("other", &details()).await.expect("placed");
        assert_eq!((first.order_id, &first.order_number), (again.order_id, &again.order_number));
        assert_ne!(first.order_number, other.order_number);
        let by_number = orders.find(&first.order_number).await.expect("read").expect("there");
        assert_eq!(by_number.order_id, first.order_id);
        assert!(orders.find("ORD-20200101-00000000").await.expect("read").is_none());
    }
}
