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

/// The position of the last of some events that follow a position without a gap.
pub fn follow(after: Position, events: &[StoredEvent]) -> Result<Position, Error> {
    events.iter().try_fold(after, |last, event| {
        if event.position == last + 1 {
            Ok(event.position)
        } else {
            Err(Error::Gap {
                expected: last + 1,
                found: event.position,
            })
        }
    })
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
        let last = follow(self.after, &events)?;
        // The head says that there is a next event: an answer without it is a gap, too.
        if last == self.after {
            return Err(Error::Gap {
                expected: last + 1,
                found: last + 2,
            });
        }
        self.after = last;
        Ok(events)
    }
}
