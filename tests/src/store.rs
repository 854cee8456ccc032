//! PostgreSQL and Redis of a deployment of many replicas.

use std::sync::{Arc, Mutex, PoisonError};

use causeway_test_servers::ServerError;

/// A store, whose operations block.
#[derive(Debug)]
pub struct Store<T>(Arc<Mutex<T>>);

impl<T: Send + 'static> Store<T> {
    pub(crate) fn new(store: T) -> Self {
        Self(Arc::new(Mutex::new(store)))
    }

    /// Does something to it, one at a time.
    ///
    /// # Errors
    /// What `work` gives.
    pub async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut T) -> Result<R, ServerError> + Send + 'static,
    ) -> anyhow::Result<R> {
        let store = Arc::clone(&self.0);
        let work = move || work(&mut store.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(tokio::task::spawn_blocking(work).await??)
    }
}
