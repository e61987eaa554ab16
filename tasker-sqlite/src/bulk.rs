//! Statements over many rows.
//!
//! Each statement costs a trip to the connection's thread and back, so a batch goes into as few as
//! possible: the row of `?` after `/* rows */` is repeated to one of a few sizes, each of which is
//! prepared once. Rows that a size has too many are bound to NULL, which no statement acts on.

use std::sync::Arc;

use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments, Encode, Sqlite, Type};

use crate::fault::Fault;

const MARK: &str = "/* rows */ ";
const SIZES: [usize; 4] = [1, 8, 64, 256];

/// The values of a statement's parameters, in their order.
#[derive(Default)]
pub(crate) struct Values {
    arguments: SqliteArguments,
    failed: Option<sqlx::Error>,
}

impl Values {
    /// Adds the next value.
    pub(crate) fn put<'q, T: Encode<'q, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        if let Err(error) = self.arguments.add(value) {
            self.failed.get_or_insert(sqlx::Error::Encode(error));
        }
        self
    }

    pub(crate) fn finish(self) -> Result<SqliteArguments, Fault> {
        match self.failed {
            None => Ok(self.arguments),
            Some(error) => Err(error.into()),
        }
    }
}

/// A statement over many rows, in all its sizes.
pub(crate) struct Bulk {
    texts: [Arc<str>; SIZES.len()],
}

impl Bulk {
    /// Makes the sizes of a statement whose row of parameters follows `/* rows */`.
    pub(crate) fn new(statement: &str) -> Self {
        let texts = SIZES.map(|size| repeat_row(statement, size).into());
        Self { texts }
    }

    /// Runs the statement for all items and counts the rows that it changed.
    pub(crate) async fn run<T>(
        &self,
        connection: &mut SqliteConnection,
        items: &[T],
        bind: impl Fn(&mut Values, &T),
    ) -> Result<u64, Fault> {
        let mut changed = 0;
        for (text, chunk) in self.chunks(items) {
            let mut values = Values::default();
            chunk.iter().for_each(|item| bind(&mut values, item));
            let query = sqlx::query_with(AssertSqlSafe(text), values.finish()?);
            changed += query.execute(&mut *connection).await?.rows_affected();
        }
        Ok(changed)
    }

    /// Runs the statement for all items and collects the rows that it answers with.
    pub(crate) async fn fetch<T>(
        &self,
        connection: &mut SqliteConnection,
        items: &[T],
        bind: impl Fn(&mut Values, &T),
    ) -> Result<Vec<SqliteRow>, Fault> {
        let mut rows = Vec::with_capacity(items.len());
        for (text, chunk) in self.chunks(items) {
            let mut values = Values::default();
            chunk.iter().for_each(|item| bind(&mut values, item));
            let query = sqlx::query_with(AssertSqlSafe(text), values.finish()?);
            rows.append(&mut query.fetch_all(&mut *connection).await?);
        }
        Ok(rows)
    }

    fn chunks<'a, T>(&'a self, mut items: &'a [T]) -> impl Iterator<Item = (Arc<str>, &'a [T])> {
        std::iter::from_fn(move || {
            if items.is_empty() {
                return None;
            }
            let fits = SIZES.iter().position(|size| *size >= items.len());
            let at = fits.unwrap_or(SIZES.len() - 1);
            let (chunk, rest) = items.split_at(items.len().min(SIZES[at]));
            items = rest;
            Some((Arc::clone(&self.texts[at]), chunk))
        })
    }
}

fn repeat_row(statement: &str, times: usize) -> String {
    let Some((before, after)) = statement.split_once(MARK) else {
        return statement.to_owned();
    };
    // A row of parameters holds no other parentheses.
    let end = after.find(')').map_or(after.len(), |at| at + 1);
    let (row, after) = after.split_at(end);
    format!("{before}{}{after}", vec![row; times].join(", "))
}

#[cfg(test)]
mod tests {
    use super::{Bulk, SIZES, repeat_row};

    #[test]
    fn the_marked_row_is_repeated_and_nothing_else() {
        let statement = "INSERT INTO t (a, b) SELECT * FROM (VALUES /* rows */ (?, ?)) WHERE a > 0";
        assert_eq!(
            repeat_row(statement, 3),
            "INSERT INTO t (a, b) SELECT * FROM (VALUES (?, ?), (?, ?), (?, ?)) WHERE a > 0",
        );
    }

    #[test]
    fn chunks_cover_all_items_once_whatever_their_number() {
        let bulk = Bulk::new("VALUES /* rows */ (?)");
        for count in [0, 1, 2, 8, 9, 64, 65, 256, 257, 1000] {
            let items: Vec<usize> = (0..count).collect();
            let chunks: Vec<_> = bulk.chunks(&items).map(|(_, chunk)| chunk.to_vec()).collect();
            assert_eq!(chunks.concat(), items);
            assert!(chunks.iter().all(|chunk| chunk.len() <= SIZES[SIZES.len() - 1]));
        }
    }
}
