//! Templates that were read or written lately, so that each is parsed once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::sqlite::SqliteConnection;
use tasker_core::{Fingerprint, TaskTemplate};

use crate::bulk::Values;
use crate::fault::Fault;
use crate::rows::Columns;

/// Above this many the cache starts anew.
const CAPACITY: usize = 1_000;

/// A cache of templates, shared by the writer and the readers.
#[derive(Default)]
pub(crate) struct Templates(Mutex<Cached>);

#[derive(Default)]
struct Cached {
    by_key: HashMap<i64, Arc<TaskTemplate>>,
    keys: HashMap<Fingerprint, i64>,
}

impl Templates {
    /// The template with a key, read on a connection if it is not cached.
    pub(crate) async fn get(
        &self,
        connection: &mut SqliteConnection,
        key: i64,
    ) -> Result<Arc<TaskTemplate>, Fault> {
        if let Some(template) = self.lock().by_key.get(&key) {
            return Ok(Arc::clone(template));
        }
        let mut values = Values::default();
        values.put(key);
        let query = include_str!("../queries/select_template.sql");
        let row = sqlx::query_with(query, values.finish()?).fetch_optional(connection).await?;
        let row = row.ok_or_else(|| Fault::Unreadable("a task has no template".to_owned()))?;
        let template = Arc::new(TaskTemplate::from_stored(Columns::of(&row).next()?)?);
        self.put(key, &template);
        Ok(template)
    }

    /// The key of a template, which is stored if it is new. Only in a transaction that may write.
    pub(crate) async fn key_of(
        &self,
        connection: &mut SqliteConnection,
        template: &Arc<TaskTemplate>,
    ) -> Result<i64, Fault> {
        let fingerprint = template.fingerprint();
        if let Some(key) = self.lock().keys.get(&fingerprint) {
            return Ok(*key);
        }
        let kind = template.task_type();
        let mut values = Values::default();
        values.put(fingerprint.as_bytes().as_slice());
        values.put(kind.namespace.as_str()).put(kind.name.as_str());
        values.put(kind.to_string()).put(template.body().as_str());
        let insert = include_str!("../queries/insert_template.sql");
        sqlx::query_with(insert, values.finish()?).execute(&mut *connection).await?;

        let mut values = Values::default();
        values.put(fingerprint.as_bytes().as_slice());
        let select = include_str!("../queries/select_template_key.sql");
        let row = sqlx::query_with(select, values.finish()?).fetch_one(connection).await?;
        let key = Columns::of(&row).next()?;
        self.put(key, template);
        Ok(key)
    }

    /// Forgets everything: a transaction that wrote templates was rolled back.
    pub(crate) fn forget(&self) {
        *self.lock() = Cached::default();
    }

    fn put(&self, key: i64, template: &Arc<TaskTemplate>) {
        let mut cached = self.lock();
        if cached.by_key.len() >= CAPACITY {
            *cached = Cached::default();
        }
        cached.keys.insert(template.fingerprint(), key);
        cached.by_key.insert(key, Arc::clone(template));
    }

    fn lock(&self) -> MutexGuard<'_, Cached> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
