//! Following the ledger: the same events by position, whatever they come from. Each implementation is
//! in a file named for what it reads.

use async_trait::async_trait;

use crate::store::History;
use events::Position;
use events::envelope::StoredEvent;

mod jetstream;
mod shared;
mod store;
mod stream;

pub use jetstream::JetStreamFeed;
pub use shared::{SharedFeed, Tail};
pub use store::StoreFeed;
pub use stream::StreamFeed;

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
    Store(#[from] crate::store::Error),
    /// An event is missing. Going on would skip it.
    #[error("position {expected} is missing: the next event is {found}")]
    Gap {
        /// The position that should have come.
        expected: Position,
        /// The position that came.
        found: Position,
    },
    /// The stream cannot be used.
    #[error(transparent)]
    Stream(#[from] crate::stream::Error),
    /// The stream holds something that the relay never publishes there.
    #[error("sequence {0} of the stream is not the event of that position")]
    Foreign(Position),
    /// The source was closed.
    #[error("the ledger was closed")]
    Closed,
}

impl Error {
    /// Whether the source is away, so that trying again may help.
    pub fn is_away(&self) -> bool {
        matches!(
            self,
            Self::Store(crate::store::Error::Unavailable(_))
                | Self::Stream(crate::stream::Error::Unavailable(_))
        )
    }
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

/// The next events of a ledger whose head is beyond a position: at least one, and no gap.
pub async fn read_after(
    history: &dyn History,
    after: Position,
    limit: usize,
) -> Result<Vec<StoredEvent>, Error> {
    let events = history.read(after, limit).await?;
    // The head says that there is a next event: an answer without it is a gap, too.
    if follow(after, &events)? == after {
        return Err(Error::Gap {
            expected: after + 1,
            found: after + 2,
        });
    }
    Ok(events)
}

/// The next events of a ledger up to a position that it has reached: at least one, and no gap.
pub async fn read_until(
    history: &dyn History,
    after: Position,
    until: Position,
    limit: usize,
) -> Result<Vec<StoredEvent>, Error> {
    let left = usize::try_from(until - after).unwrap_or(usize::MAX);
    read_after(history, after, left.min(limit)).await
}
