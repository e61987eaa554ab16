//! What the shop's folder and database hold, read behind its back.

use std::collections::BTreeMap;
use std::path::Path;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, FromRow};

use super::{Folder, block_on};

/// A payment in the gateway's ledger.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Payment {
    pub(crate) payment_id: String,
    pub(crate) amount: String,
    pub(crate) state: String,
    pub(crate) requests: i64,
    pub(crate) captures: i64,
    pub(crate) refunds: i64,
}

/// A call that the gateway has had. Times are microseconds since 1970.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Call {
    pub(crate) kind: String,
    /// The gateway's mode when it came.
    pub(crate) mode: String,
    pub(crate) began_at: i64,
    pub(crate) ended_at: Option<i64>,
}

/// An order that the shop has written down.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Order {
    pub(crate) order_number: String,
    pub(crate) task_id: String,
    pub(crate) payment_id: String,
    pub(crate) total: f64,
}

/// A row of the workflows' history.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Row {
    /// The task's id, hexadecimal without hyphens.
    pub(crate) task: String,
    /// The step's position, or -1 for the task's own rows.
    pub(crate) step: i64,
    pub(crate) seq: i64,
    pub(crate) attempt: i64,
    pub(crate) kind: String,
}

impl Folder {
    pub(crate) fn ledger(&self) -> Vec<Payment> {
        select(
            &file(&self.path().join("gateway.db")),
            "SELECT payment_id, amount, state, requests, captures, refunds FROM payments",
        )
    }

    /// Every call to the gateway, in the order in which they came.
    pub(crate) fn calls(&self) -> Vec<Call> {
        select(
            &file(&self.path().join("gateway.db")),
            "SELECT kind, mode, began_at, ended_at FROM calls ORDER BY call",
        )
    }

    /// From now on the shop's database takes no order.
    pub(crate) fn refuse_orders(&self) {
        let refuse = match &self.database {
            None => {
                "CREATE TRIGGER refuse BEFORE INSERT ON orders WHEN NEW.state = 'placed'
                 BEGIN SELECT RAISE(ABORT, 'no orders today'); END"
            }
            Some(_) => {
                "ALTER TABLE shop.orders ADD CONSTRAINT refuse CHECK (state <> 'placed') NOT VALID"
            }
        };
        self.execute(refuse);
    }

    /// It takes orders again.
    pub(crate) fn take_orders(&self) {
        self.execute(match &self.database {
            None => "DROP TRIGGER refuse",
            Some(_) => "ALTER TABLE shop.orders DROP CONSTRAINT refuse",
        });
    }

    fn execute(&self, statement: &'static str) {
        let url = match &self.database {
            None => file(&self.path().join("shop.db")),
            Some(database) => database.url().to_owned(),
        };
        sqlx::any::install_default_drivers();
        block_on(async {
            let mut connection = AnyConnection::connect(&url).await.unwrap();
            sqlx::query(statement).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        });
    }

    /// Those that were not withdrawn.
    pub(crate) fn orders(&self) -> Vec<Order> {
        self.select(
            "shop.db",
            "SELECT order_number, details{json} ->> 'task_id' AS task_id,
                 details{json} ->> 'payment_id' AS payment_id,
                 CAST(details{json} ->> 'total_amount' AS DOUBLE PRECISION) AS total
             FROM {shop}orders WHERE state = 'placed'",
        )
    }

    /// What is left of every product.
    pub(crate) fn stock(&self) -> BTreeMap<i64, i64> {
        let rows: Vec<(i64, i64)> =
            self.select("shop.db", "SELECT product_id, available FROM {shop}stock");
        rows.into_iter().collect()
    }

    /// How many of every product are reserved.
    pub(crate) fn reserved(&self) -> BTreeMap<i64, i64> {
        let rows: Vec<(i64, i64)> = self.select(
            "shop.db",
            "SELECT product_id, CAST(sum(quantity) AS BIGINT)
             FROM {shop}reserved_items GROUP BY product_id",
        );
        rows.into_iter().collect()
    }

    /// The e-mails that were sent, by the name of their file.
    pub(crate) fn mails(&self) -> BTreeMap<String, String> {
        let Ok(entries) = std::fs::read_dir(self.path().join("mailbox")) else {
            return BTreeMap::new();
        };
        let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        let named = |path: std::path::PathBuf| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        };
        files.map(named).collect()
    }

    /// The states of all tasks, by id.
    pub(crate) fn tasks(&self) -> BTreeMap<String, String> {
        let rows: Vec<(String, String)> =
            self.select("tasker.db", "SELECT {hex}(id), state FROM {tasker}task");
        rows.into_iter().map(|(id, state)| (plain(&id), state)).collect()
    }

    /// How many tasks belong to a worker.
    pub(crate) fn owned_tasks(&self) -> usize {
        let owned: Vec<(i64,)> =
            self.select("tasker.db", "SELECT 1 FROM {tasker}task WHERE owner IS NOT NULL");
        owned.len()
    }

    /// The history of all tasks, each log in order.
    pub(crate) fn history(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.select(
            "tasker.db",
            "SELECT {hex}(task) AS task, step, seq, attempt, kind FROM {tasker}history
             ORDER BY 1, 2, 3",
        );
        rows.iter_mut().for_each(|row| row.task = plain(&row.task));
        rows
    }

    /// Reads a SQLite file, or the database that has the same tables in schemas.
    fn select<T>(&self, name: &str, query: &str) -> Vec<T>
    where
        T: for<'row> FromRow<'row, AnyRow> + Send + Unpin,
    {
        let (url, words) = match &self.database {
            None => (file(&self.path().join(name)), ["", "", "", "hex"]),
            Some(database) => (database.url().to_owned(), ["shop.", "tasker.", "::json", "concat"]),
        };
        let mut query = query.to_owned();
        for (name, word) in ["{shop}", "{tasker}", "{json}", "{hex}"].iter().zip(words) {
            query = query.replace(name, word);
        }
        select(&url, &query)
    }

    /// The files that hold a text anywhere, by their path in the folder.
    pub(crate) fn files_with(&self, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else if holds(&std::fs::read(entry.path()).unwrap(), text.as_bytes()) {
                    let path = entry.path();
                    let inside = path.strip_prefix(self.path()).unwrap();
                    found.push(inside.to_string_lossy().into_owned());
                }
            }
        }
        found.sort();
        found
    }
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

fn file(path: &Path) -> String {
    format!("sqlite://{}", path.display())
}

/// An id in hexadecimal without hyphens.
fn plain(id: &str) -> String {
    id.replace('-', "").to_lowercase()
}

fn select<T>(url: &str, query: &str) -> Vec<T>
where
    T: for<'row> FromRow<'row, AnyRow> + Send + Unpin,
{
    sqlx::any::install_default_drivers();
    block_on(async {
        let mut connection = AnyConnection::connect(url).await.unwrap();
        let rows = sqlx::query_as(AssertSqlSafe(query)).fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        rows
    })
}
