//! The orders that were placed.
//!
//! An order is known by its idempotency key: a repeat finds the order and its number, made when it
//! was made first, be that yesterday. One that is withdrawn stays on record.

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
    -- placed; for good: withdrawn
    state           TEXT NOT NULL DEFAULT 'placed',
    order_number    TEXT UNIQUE,
    -- everything else about the order, as JSON
    details         TEXT,
    placed_at       TEXT,
    -- an order that was withdrawn before it was placed is a key and nothing else
    CHECK (state = 'withdrawn'
        OR (order_number IS NOT NULL AND details IS NOT NULL AND placed_at IS NOT NULL))
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
    /// `placed` or `withdrawn`.
    pub(crate) state: String,
    pub(crate) placed_at: Timestamp,
    #[serde(flatten)]
    pub(crate) details: OrderDetails,
}

/// An order that there is no more.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Withdrawal {
    /// `None` if it was withdrawn before it was placed.
    pub(crate) order_number: Option<String>,
}

/// Orders that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrdersError {
    #[error("the orders are not available")]
    Unavailable(#[from] sqlx::Error),
    #[error("the details of an order cannot be read or written")]
    Unreadable(#[from] serde_json::Error),
    #[error("the order was withdrawn")]
    Withdrawn,
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
                    return match row.get("state") {
                        "withdrawn" => Err(OrdersError::Withdrawn),
                        _ => read(&row),
                    };
                }
            }
        }
        Err(OrdersError::NumbersUsedUp)
    }

    /// Withdraws the order that was placed under a key; a repeat finds it withdrawn.
    ///
    /// A key that nothing was placed under is put on record as withdrawn: should the order arrive
    /// late, it finds [`OrdersError::Withdrawn`]. So it does not matter which is first.
    pub(crate) async fn withdraw(&self, key: &str) -> Result<Withdrawal, OrdersError> {
        let row = self
            .database
            .query(
                "INSERT INTO {shop}orders (idempotency_key, state) VALUES ($1, 'withdrawn')
                 ON CONFLICT (idempotency_key) DO UPDATE SET state = 'withdrawn'
                 RETURNING order_number",
            )
            .bind(key.to_owned())
            .fetch_one(self.database.pool())
            .await?;
        Ok(Withdrawal { order_number: row.get("order_number") })
    }

    /// The order with an id or a number.
    pub(crate) async fn find(&self, id_or_number: &str) -> Result<Option<Order>, OrdersError> {
        // PostgreSQL has no text with a NUL, and so no order by that name.
        if id_or_number.contains('\0') {
            return Ok(None);
        }
        let row = self
            .database
            .query(
                "SELECT * FROM {shop}orders
                 WHERE details IS NOT NULL AND (order_id = $1 OR order_number = $2)",
            )
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
        state: row.get("state"),
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
    use crate::database::empty;

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

    #[tokio::test]
    async fn an_order_that_is_withdrawn_stays_on_record_and_is_not_placed_again() {
        for (database, _kept) in empty(&[TABLES]).await {
            let orders = Orders::new(database);
            let placed = orders.place("key", &details()).await.expect("placed");
            let number = Some(placed.order_number.clone());
            for _ in 0..2 {
                let withdrawn = orders.withdraw("key").await.expect("withdrawn");
                assert_eq!(withdrawn.order_number, number);
            }
            let found = orders.find(&placed.order_number).await.expect("read").expect("there");
            assert_eq!((found.order_id, &*found.state), (placed.order_id, "withdrawn"));
            let again = orders.place("key", &details()).await;
            assert!(matches!(again, Err(OrdersError::Withdrawn)), "{again:?}");
        }
    }

    #[tokio::test]
    async fn an_order_that_comes_after_its_withdrawal_is_refused() {
        for (database, _kept) in empty(&[TABLES]).await {
            let orders = Orders::new(database);
            assert_eq!(orders.withdraw("key").await.expect("on record").order_number, None);
            let late = orders.place("key", &details()).await;
            assert!(matches!(late, Err(OrdersError::Withdrawn)), "{late:?}");
            assert!(orders.find("1").await.expect("read").is_none());
            orders.place("other", &details()).await.expect("nobody withdrew that one");
        }
    }
}
