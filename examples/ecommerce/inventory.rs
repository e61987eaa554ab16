//! What is in stock, and what is reserved for whom.
//!
//! Stock and reservations change in one transaction, and a reservation is known by its idempotency
//! key: a repeat reserves nothing twice and releases nothing twice, and no stock is ever negative.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::catalogue;
use crate::checkout::PricedItem;
use crate::database::{Database, undisturbed};

pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS {shop}stock (
    product_id INTEGER PRIMARY KEY,
    available  INTEGER NOT NULL CHECK (available >= 0)
){strict};
CREATE TABLE IF NOT EXISTS {shop}reservations (
    idempotency_key TEXT PRIMARY KEY,
    reservation_id  TEXT NOT NULL,
    -- reserved; for good: released
    state           TEXT NOT NULL DEFAULT 'reserved'
){strict};
-- What is set aside now.
CREATE TABLE IF NOT EXISTS {shop}reserved_items (
    idempotency_key TEXT NOT NULL REFERENCES {shop}reservations,
    product_id      INTEGER NOT NULL REFERENCES {shop}stock,
    quantity        INTEGER NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (idempotency_key, product_id)
){strict};
";

/// The shop's stock; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Inventory {
    database: Database,
}

/// Items set aside for one order.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Reservation {
    pub(crate) reservation_id: String,
    pub(crate) items_reserved: u32,
}

/// A reservation that there is no more.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Release {
    pub(crate) reservation_id: String,
    /// What went back into stock; nothing if it had gone back before, or nothing was reserved.
    pub(crate) items_returned: u32,
}

/// A reservation that cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InventoryError {
    #[error("not enough of `{product}` in stock: {asked} asked for, {available} left")]
    Insufficient { product: String, asked: u32, available: u32 },
    #[error("the reservation was released")]
    Released,
    #[error("the inventory is not available")]
    Unavailable(#[from] sqlx::Error),
    #[error("the reservation broke off")]
    BrokenOff(#[from] tokio::task::JoinError),
}

impl Inventory {
    /// The stock in a database, with what the catalogue says of products it does not know yet.
    pub(crate) async fn open(database: Database) -> Result<Self, sqlx::Error> {
        for product in catalogue::PRODUCTS {
            database
                .query("INSERT INTO {shop}stock VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(i64::from(product.id))
                .bind(i64::from(product.opening_stock))
                .execute(database.pool())
                .await?;
        }
        Ok(Self { database })
    }

    /// How many of a product are left.
    pub(crate) async fn available(&self, product_id: u32) -> Result<u32, sqlx::Error> {
        let row = self
            .database
            .query(AVAILABLE)
            .bind(i64::from(product_id))
            .fetch_optional(self.database.pool())
            .await?;
        Ok(left(row.as_ref()))
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

    /// Puts what was set aside under a key back into stock, once, however often it is asked for.
    ///
    /// A key that nothing was reserved under is put on record as released: should the reservation
    /// arrive late, it finds [`InventoryError::Released`]. So it does not matter which is first.
    pub(crate) async fn release(&self, key: &str) -> Result<Release, InventoryError> {
        let put = undisturbed(put_back(self.database.clone(), key.to_owned()));
        let items_returned = put.await??;
        Ok(Release { reservation_id: reservation_id(key), items_returned })
    }
}

const AVAILABLE: &str = "SELECT available FROM {shop}stock WHERE product_id = $1";

/// A stock is never negative; of a product that has none there is nothing.
fn left(row: Option<&AnyRow>) -> u32 {
    row.and_then(|row| u32::try_from(row.get::<i64, _>("available")).ok()).unwrap_or(0)
}

async fn set_aside(
    database: Database,
    key: String,
    wanted: BTreeMap<u32, u32>,
) -> Result<(), InventoryError> {
    let mut transaction = database.begin().await?;
    let made = database
        .query(
            "INSERT INTO {shop}reservations (idempotency_key, reservation_id) VALUES ($1, $2)
             ON CONFLICT DO NOTHING",
        )
        .bind(key.clone())
        .bind(reservation_id(&key))
        .execute(&mut *transaction)
        .await?;
    if made.rows_affected() == 0 {
        let found = database
            .query("SELECT state FROM {shop}reservations WHERE idempotency_key = $1")
            .bind(key)
            .fetch_one(&mut *transaction)
            .await?;
        let released = found.get::<&str, _>("state") == "released";
        return if released { Err(InventoryError::Released) } else { Ok(()) };
    }
    // In the order of the products, so that no two orders wait for each other.
    for (product, quantity) in wanted {
        let taken = database
            .query(
                "UPDATE {shop}stock SET available = available - $2
                 WHERE product_id = $1 AND available >= $2",
            )
            .bind(i64::from(product))
            .bind(i64::from(quantity))
            .execute(&mut *transaction)
            .await?;
        if taken.rows_affected() == 0 {
            let row = database.query(AVAILABLE).bind(i64::from(product));
            let row = row.fetch_optional(&mut *transaction).await?;
            return Err(InventoryError::Insufficient {
                product: catalogue::find(product).map_or("unknown", |known| known.name).to_owned(),
                asked: quantity,
                available: left(row.as_ref()),
            });
        }
        database
            .query("INSERT INTO {shop}reserved_items VALUES ($1, $2, $3)")
            .bind(key.clone())
            .bind(i64::from(product))
            .bind(i64::from(quantity))
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Gives how many items went back into stock.
async fn put_back(database: Database, key: String) -> Result<u32, InventoryError> {
    let mut transaction = database.begin().await?;
    let released = database
        .query(
            "INSERT INTO {shop}reservations AS held (idempotency_key, reservation_id, state)
             VALUES ($1, $2, 'released')
             ON CONFLICT (idempotency_key) DO UPDATE SET state = 'released'
             WHERE held.state <> 'released'",
        )
        .bind(key.clone())
        .bind(reservation_id(&key))
        .execute(&mut *transaction)
        .await?;
    if released.rows_affected() == 0 {
        return Ok(0);
    }
    let rows = database
        .query(
            "DELETE FROM {shop}reserved_items WHERE idempotency_key = $1
             RETURNING product_id, quantity",
        )
        .bind(key)
        .fetch_all(&mut *transaction)
        .await?;
    // In the order of the products, as they were taken.
    let numbers = |row: &AnyRow| (row.get("product_id"), row.get("quantity"));
    let items: BTreeMap<i64, i64> = rows.iter().map(numbers).collect();
    for (product, quantity) in &items {
        database
            .query("UPDATE {shop}stock SET available = available + $2 WHERE product_id = $1")
            .bind(*product)
            .bind(*quantity)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(items.values().filter_map(|quantity| u32::try_from(*quantity).ok()).sum())
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
    use crate::database::{Kept, empty};

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
        let file = folder.path().join("shop.db");
        let database = Database::in_file(&file, &[TABLES]).await.expect("a file");
        Inventory::open(database).await.expect("stock")
    }

    /// The same shop on either database.
    async fn inventories() -> Vec<(Inventory, Kept)> {
        let mut inventories = Vec::new();
        for (database, kept) in empty(&[TABLES]).await {
            inventories.push((Inventory::open(database).await.expect("stock"), kept));
        }
        inventories
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

    #[tokio::test]
    async fn twenty_releases_put_the_items_back_once() {
        for (inventory, _kept) in inventories().await {
            inventory.reserve("other", &[doohickeys(1)]).await.expect("in stock");
            inventory.reserve("key", &[doohickeys(2)]).await.expect("in stock");
            let releases = (0..20).map(|_| {
                let inventory = inventory.clone();
                tokio::spawn(async move { inventory.release("key").await })
            });
            let releases: Vec<_> = releases.collect();
            let mut returned = Vec::new();
            for release in releases {
                let release = release.await.expect("no panic").expect("released");
                returned.push(release.items_returned);
            }
            returned.sort_unstable();
            assert_eq!((returned[18], returned[19]), (0, 2));
            assert_eq!(left(&inventory).await, 2);
        }
    }

    #[tokio::test]
    async fn a_reservation_that_comes_after_its_release_is_refused() {
        for (inventory, _kept) in inventories().await {
            assert_eq!(inventory.release("key").await.expect("on record").items_returned, 0);
            let late = inventory.reserve("key", &[doohickeys(2)]).await;
            assert!(matches!(late, Err(InventoryError::Released)), "{late:?}");
            assert_eq!(left(&inventory).await, 3);
        }
    }

    #[tokio::test]
    async fn a_reservation_that_races_its_release_leaves_the_stock_as_it_was() {
        for (inventory, _kept) in inventories().await {
            for round in 0..50 {
                let key = format!("key {round}");
                let (reserving, releasing) = (inventory.clone(), inventory.clone());
                let (reserved, released) = (key.clone(), key.clone());
                let reserve =
                    tokio::spawn(
                        async move { reserving.reserve(&reserved, &[doohickeys(3)]).await },
                    );
                let release = tokio::spawn(async move { releasing.release(&released).await });
                let reserve = reserve.await.expect("no panic");
                assert!(matches!(reserve, Ok(_) | Err(InventoryError::Released)), "{reserve:?}");
                release.await.expect("no panic").expect("released");
                assert_eq!(left(&inventory).await, 3, "{key}");
            }
        }
    }
}
