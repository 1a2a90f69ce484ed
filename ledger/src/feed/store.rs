//! Follows the ledger in its store.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Error, Feed, read_until};
use crate::store::History;
use events::Position;
use events::envelope::StoredEvent;

/// Tails the ledger itself. While idle it waits for the head and queries nothing.
pub struct StoreFeed {
    history: Arc<dyn History>,
    head: watch::Receiver<Position>,
    after: Position,
    batch: usize,
}

impl StoreFeed {
    /// A feed of the events after a position, at most `batch` at a time.
    pub fn new(history: Arc<dyn History>, after: Position, batch: usize) -> Self {
        let head = history.watch_head();
        Self {
            history,
            head,
            after,
            batch,
        }
    }
}

#[async_trait]
impl Feed for StoreFeed {
    async fn next(&mut self) -> Result<Vec<StoredEvent>, Error> {
        let head = *self
            .head
            .wait_for(|head| *head > self.after)
            .await
            .map_err(|_| Error::Closed)?;
        let events = read_until(&*self.history, self.after, head, self.batch).await?;
        self.after += events.len() as u64;
        Ok(events)
    }
}
