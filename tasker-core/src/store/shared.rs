//! A store that is shared is a store.

use std::sync::Arc;
use std::time::Duration;

use super::{
    ClaimRequest, Claimed, Committed, Created, DocumentChange, DocumentQuery, Documents,
    DocumentsWritten, Heartbeat, NewTask, Renewed, StateStore, StoreError, StoredTask, TaskChange,
    TaskQuery, TaskSummary,
};
use crate::history::Author;
use crate::{TaskId, WorkerId, async_trait};

#[async_trait]
impl<S: StateStore + ?Sized> StateStore for Arc<S> {
    async fn create(
        &self,
        tasks: Vec<NewTask>,
        claimant: Option<WorkerId>,
    ) -> Result<Vec<Created>, StoreError> {
        (**self).create(tasks, claimant).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, StoreError> {
        (**self).claim(request).await
    }

    async fn commit(
        &self,
        author: &Author,
        changes: Vec<TaskChange>,
    ) -> Result<Committed, StoreError> {
        (**self).commit(author, changes).await
    }

    async fn renew(&self, beat: Heartbeat) -> Result<Renewed, StoreError> {
        (**self).renew(beat).await
    }

    async fn take_over(&self, limit: usize) -> Result<Vec<WorkerId>, StoreError> {
        (**self).take_over(limit).await
    }

    async fn load(&self, task: TaskId) -> Result<Option<StoredTask>, StoreError> {
        (**self).load(task).await
    }

    async fn find(&self, query: TaskQuery) -> Result<Vec<TaskSummary>, StoreError> {
        (**self).find(query).await
    }

    async fn read_documents(&self, query: DocumentQuery) -> Result<Documents, StoreError> {
        (**self).read_documents(query).await
    }

    async fn write_documents(
        &self,
        changes: Vec<DocumentChange>,
    ) -> Result<DocumentsWritten, StoreError> {
        (**self).write_documents(changes).await
    }

    async fn wait_for_work(&self, worker: WorkerId, max: Duration) {
        (**self).wait_for_work(worker, max).await;
    }
}
