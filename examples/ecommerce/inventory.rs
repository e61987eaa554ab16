//! What is in stock, and what is reserved for whom.
//!
//! Stock and reservations change in one transaction, and a reservation is known by its idempotency
//! key: a repeat reserves nothing twice, and no stock is ever negative.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::{Row, SqlitePool};

use crate::catalogue;
use crate::checkout::PricedItem;
use crate::database::undisturbed;

pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS stock (
    product_id INTEGER PRIMARY KEY,
    available  INTEGER NOT NULL CHECK (available >= 0)
) STRICT;
CREATE TABLE IF NOT EXISTS reservations (
    idempotency_key TEXT PRIMARY KEY,
    reservation_id  TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS reserved_items (
    idempotency_key TEXT NOT NULL REFERENCES reservations,
    product_id      INTEGER NOT NULL REFERENCES stock,
    quantity        INTEGER NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (idempotency_key, product_id)
) STRICT, WITHOUT ROWID;
";

/// The shop's stock; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Inventory {
    database: SqlitePool,
}

/// Items set aside for one order.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Reservation {
    pub(crate) reservation_id: String,
    pub(crate) items_reserved: u32,
}

/// A reservation that cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InventoryError {
    #[error("not enough of `{product}` in stock: {asked} asked for, {available} left")]
    Insufficient { product: String, asked: u32, available: u32 },
    #[error("the inventory is not available")]
    Unavailable(#[from] sqlx::Error),
    #[error("the reservation broke off")]
    BrokenOff(#[from] tokio::task::JoinError),
}

impl Inventory {
    /// The stock in a database, with what the catalogue says of products it does not know yet.
    pub(crate) async fn open(database: SqlitePool) -> Result<Self, sqlx::Error> {
        for product in catalogue::PRODUCTS {
            sqlx::query("INSERT INTO stock VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(product.id)
                .bind(product.opening_stock)
                .execute(&database)
                .await?;
        }
        Ok(Self { database })
    }

    /// How many of a product are left.
    pub(crate) async fn available(&self, product_id: u32) -> Result<u32, sqlx::Error> {
        let row = sqlx::query("SELECT available FROM stock WHERE product_id = ?")
            .bind(product_id)
            .fetch_optional(&self.database)
            .await?;
        Ok(row.map_or(0, |row| row.get("available")))
    }

    /// Sets items aside, all of them or none; a repeat under the same key finds the same ones.
    pub(crate) async fn reserve(
        &self,
        key: &str,
        items: &[PricedItem],
    ) -> Result<Reservation, InventoryError> {
        let mut wanted = BTreeMap::new();
        for item in items {
            *wanted.entry(item.product_id).or_insert(0) += item.quantity;
        }
        let reservation = Reservation {
            reservation_id: reservation_id(key),
            items_reserved: wanted.values().sum(),
        };
        undisturbed(set_aside(self.database.clone(), key.to_owned(), wanted)).await??;
        Ok(reservation)
    }
}

async fn set_aside(
    database: SqlitePool,
    key: String,
    wanted: BTreeMap<u32, u32>,
) -> Result<(), InventoryError> {
    // IMMEDIATE: a transaction that began by reading could not wait for another one's writes.
    let mut transaction = database.begin_with("BEGIN IMMEDIATE").await?;
    let made = sqlx::query("INSERT INTO reservations VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(&key)
        .bind(reservation_id(&key))
        .execute(&mut *transaction)
        .await?;
    if made.rows_affected() == 0 {
        return Ok(());
    }
    for (product, quantity) in wanted {
        let taken = sqlx::query(
            "UPDATE stock SET available = available - ?2
             WHERE product_id = ?1 AND available >= ?2",
        )
        .bind(product)
        .bind(quantity)
        .execute(&mut *transaction)
        .await?;
        if taken.rows_affected() == 0 {
            let left = sqlx::query("SELECT available FROM stock WHERE product_id = ?")
                .bind(product)
                .fetch_optional(&mut *transaction)
                .await?;
            return Err(InventoryError::Insufficient {
                product: catalogue::find(product).map_or("unknown", |known| known.name).to_owned(),
                asked: quantity,
                available: left.map_or(0, |row| row.get("available")),
            });
        }
        sqlx::query("INSERT INTO reserved_items VALUES (?, ?, ?)")
            .bind(&key)
            .bind(product)
            .bind(quantity)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(())
}

fn reservation_id(key: &str) -> String {
    let digest = Sha256::digest(key.as_bytes());
    let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("res_{hex}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::unwrap_used)]

    use super::*;
    use crate::database;

    fn doohickeys(quantity: u32) -> PricedItem {
        let product = catalogue::find(6).expect("in the catalogue");
        PricedItem {
            product_id: product.id,
            name: product.name.to_owned(),
            quantity,
            unit_price: product.price,
            line_total: product.price * quantity,
        }
    }

    async fn inventory(folder: &tempfile::TempDir) -> Inventory {
        let pool = database::open(&folder.path().join("shop.db"), &[TABLES]).await.expect("a file");
        Inventory::open(pool).await.expect("stock")
    }

    async fn left(inventory: &Inventory) -> u32 {
        inventory.available(6).await.expect("a count")
    }

    #[tokio::test]
    async fn a_repeat_reserves_nothing_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let inventory = inventory(&folder).await;
        let first = inventory.reserve("key", &[doohickeys(2)]).await.expect("in stock");
        let again = inventory.reserve("key", &[doohickeys(2)]).await.expect("known");
        assert_eq!(first, again);
        assert_eq!(left(&inventory).await, 1);
    }

    #[tokio::test]
    async fn twenty_customers_share_three_items_and_none_is_sold_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let inventory = inventory(&folder).await;
        let customers: Vec<_> = (0..20)
            .map(|customer| {
                let inventory = inventory.clone();
                tokio::spawn(async move {
                    inventory.reserve(&format!("customer {customer}"), &[doohickeys(1)]).await
                })
            })
            .collect();
        let mut served = 0;
        for customer in customers {
            match customer.await.expect("no panic") {
                Ok(_) => served += 1,
                Err(InventoryError::Insufficient { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!((served, left(&inventory).await), (3, 0));
    }

    #[tokio::test]
    async fn an_order_that_cannot_be_filled_takes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let inventory = inventory(&folder).await;
        let gadget = PricedItem { product_id: 3, quantity: 1, ..doohickeys(1) };
        let refused = inventory.reserve("key", &[gadget, doohickeys(2), doohickeys(2)]).await;
        let Err(InventoryError::Insufficient { asked: 4, available: 3, .. }) = refused else {
            panic!("{refused:?}");
        };
        let gadgets = catalogue::find(3).expect("known");
        assert_eq!(inventory.available(gadgets.id).await.expect("a count"), gadgets.opening_stock);
    }
}
