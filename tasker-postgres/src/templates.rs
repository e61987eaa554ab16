//! Templates that were read or written lately, so that each is parsed once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::postgres::PgConnection;
use tasker_core::{Fingerprint, TaskTemplate};

use crate::database::statement;
use crate::fault::Fault;
use crate::rows::Columns;
use crate::statements::Statements;

/// Above this many the cache starts anew.
const CAPACITY: usize = 1_000;

/// A cache of templates. They are never changed or deleted, so what is cached stays true.
#[derive(Debug, Default)]
pub(crate) struct Templates(Mutex<Cached>);

#[derive(Debug, Default)]
struct Cached {
    by_key: HashMap<i64, Arc<TaskTemplate>>,
    keys: HashMap<Fingerprint, i64>,
}

impl Templates {
    /// The template with a key, read on a connection if it is not cached.
    pub(crate) async fn get(
        &self,
        connection: &mut PgConnection,
        sql: &Statements,
        key: i64,
    ) -> Result<Arc<TaskTemplate>, Fault> {
        if let Some(template) = self.lock().by_key.get(&key) {
            return Ok(Arc::clone(template));
        }
        let query = statement(&sql.select_template).bind(key);
        let row = query.fetch_optional(connection).await?;
        let row = row.ok_or_else(|| Fault::Unreadable("a task has no template".to_owned()))?;
        let template = Arc::new(TaskTemplate::from_stored(Columns::of(&row).next()?)?);
        self.put(key, &template);
        Ok(template)
    }

    /// The key of a template, which is stored if it is new. Not in an open transaction: what is
    /// cached must be there for good.
    pub(crate) async fn key_of(
        &self,
        connection: &mut PgConnection,
        sql: &Statements,
        template: &Arc<TaskTemplate>,
    ) -> Result<i64, Fault> {
        let fingerprint = template.fingerprint();
        if let Some(key) = self.lock().keys.get(&fingerprint) {
            return Ok(*key);
        }
        let kind = template.task_type();
        let bytes = fingerprint.as_bytes().to_vec();
        let insert = statement(&sql.insert_template)
            .bind(bytes.clone())
            .bind(kind.namespace.as_str().to_owned())
            .bind(kind.name.as_str().to_owned())
            .bind(kind.to_string())
            .bind(template.body().as_str().to_owned());
        insert.execute(&mut *connection).await?;
        let row = statement(&sql.select_template_key).bind(bytes).fetch_one(connection).await?;
        let key = i64::from(Columns::of(&row).next::<i32>()?);
        self.put(key, template);
        Ok(key)
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
