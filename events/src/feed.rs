//! Following the ledger: the same events by position, whatever they come from.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::Position;
use crate::envelope::StoredEvent;
use crate::store::{self, History};

/// Events by position, each once, in order, without a gap.
#[async_trait]
pub trait Feed: Send {
    /// The next events, at least one; waits until there is one. Cancel-safe: a dropped call
    /// loses nothing.
    async fn next(&mut self) -> Result<Vec<StoredEvent>, Error>;
}

/// Why a feed stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source is away; calling again later may help.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// An event is missing. Going on would skip it.
    #[error("position {expected} is missing: the next event is {found}")]
    Gap {
        /// The position that should have come.
        expected: Position,
        /// The position that came.
        found: Position,
    },
    /// The source was closed.
    #[error("the ledger was closed")]
    Closed,
}

/// Tails the ledger itself. Idle, it waits on the head and asks nothing.
pub struct StoreFeed {
    history: Arc<dyn History>,
    head: watch::Receiver<Position>,
    after: Position,
    batch: usize,
}

impl StoreFeed {
    /// Events after a position, at most `batch` at a time.
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
        self.head
            .wait_for(|head| *head > self.after)
            .await
            .map_err(|_| Error::Closed)?;
        let events = self.history.read(self.after, self.batch).await?;
        // The head says that there is a next event: an answer without it is a gap, too.
        let mut expected = self.after + 1;
        if events.is_empty() {
            return Err(Error::Gap {
                expected,
                found: expected + 1,
            });
        }
        for event in &events {
            if event.position != expected {
                return Err(Error::Gap {
                    expected,
                    found: event.position,
                });
            }
            expected += 1;
        }
        self.after = expected - 1;
        Ok(events)
    }
}
