//! What the shop's folder holds, read from its files behind its back.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions, Connection, FromRow};

use super::Folder;

/// A payment in the gateway's ledger.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Payment {
    pub(crate) payment_id: String,
    pub(crate) amount: String,
    pub(crate) state: String,
    pub(crate) requests: i64,
    pub(crate) captures: i64,
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
            &self.path().join("gateway.db"),
            "SELECT payment_id, amount, state, requests, captures FROM payments",
        )
    }

    pub(crate) fn orders(&self) -> Vec<Order> {
        select(
            &self.path().join("shop.db"),
            "SELECT order_number, details ->> 'task_id' AS task_id,
                 details ->> 'payment_id' AS payment_id,
                 CAST(details ->> 'total_amount' AS REAL) AS total
             FROM orders",
        )
    }

    /// What is left of every product.
    pub(crate) fn stock(&self) -> BTreeMap<i64, i64> {
        let rows: Vec<(i64, i64)> =
            select(&self.path().join("shop.db"), "SELECT product_id, available FROM stock");
        rows.into_iter().collect()
    }

    /// How many of every product are reserved.
    pub(crate) fn reserved(&self) -> BTreeMap<i64, i64> {
        let rows: Vec<(i64, i64)> = select(
            &self.path().join("shop.db"),
            "SELECT product_id, sum(quantity) FROM reserved_items GROUP BY product_id",
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
            select(&self.path().join("tasker.db"), "SELECT lower(hex(id)), state FROM task");
        rows.into_iter().collect()
    }

    /// How many tasks belong to a worker.
    pub(crate) fn owned_tasks(&self) -> usize {
        let owned: Vec<(i64,)> =
            select(&self.path().join("tasker.db"), "SELECT 1 FROM task WHERE owner IS NOT NULL");
        owned.len()
    }

    /// The history of all tasks, each log in order.
    pub(crate) fn history(&self) -> Vec<Row> {
        select(
            &self.path().join("tasker.db"),
            "SELECT lower(hex(task)) AS task, step, seq, attempt, kind FROM history
             ORDER BY task, step, seq",
        )
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

fn select<T>(file: &Path, query: &'static str) -> Vec<T>
where
    T: for<'row> FromRow<'row, SqliteRow> + Send + Unpin,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = SqliteConnectOptions::new().filename(file).busy_timeout(Duration::from_secs(10));
    runtime.block_on(async {
        let mut connection = options.connect().await.unwrap();
        let rows = sqlx::query_as(query).fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        rows
    })
}
