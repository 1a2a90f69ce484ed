//! Following the ledger: every source yields the same events by position. Each implementation is in
//! a file named after its source.

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

/// Events by position: each once, in order, without gaps.
#[async_trait]
pub trait Feed: Send {
    /// The next events, at least one. Waits until there is one. Cancel-safe: a dropped call loses
    /// nothing.
    async fn next(&mut self) -> Result<Vec<StoredEvent>, Error>;
}

/// The reason why a feed stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source is unavailable; a later call may succeed.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// An event is missing. Going on would skip it.
    #[error("position {expected} is missing: the next event is {found}")]
    Gap {
        /// The expected position.
        expected: Position,
        /// The found position.
        found: Position,
    },
    /// The stream cannot be used.
    #[error(transparent)]
    Stream(#[from] crate::stream::Error),
    /// The stream contains something that the relay never publishes.
    #[error("sequence {0} of the stream is not the event of that position")]
    Foreign(Position),
    /// The source was closed.
    #[error("the ledger was closed")]
    Closed,
}

impl Error {
    /// Whether the source is unavailable, so that another attempt may succeed.
    pub fn is_away(&self) -> bool {
        matches!(
            self,
            Self::Store(crate::store::Error::Unavailable(_))
                | Self::Stream(crate::stream::Error::Unavailable(_))
        )
    }
}

/// Checks that events follow a position without gaps. Returns the position of the last one.
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

/// The next events of a ledger whose head is beyond a position: at least one, without gaps.
pub async fn read_after(
    history: &dyn History,
    after: Position,
    limit: usize,
) -> Result<Vec<StoredEvent>, Error> {
    let events = history.read(after, limit).await?;
    // The head says that there is a next event, so an answer without it is also a gap.
    if follow(after, &events)? == after {
        return Err(Error::Gap {
            expected: after + 1,
            found: after + 2,
        });
    }
    Ok(events)
}

/// The next events of a ledger up to a position that it has reached: at least one, without gaps.
pub async fn read_until(
    history: &dyn History,
    after: Position,
    until: Position,
    limit: usize,
) -> Result<Vec<StoredEvent>, Error> {
    let left = usize::try_from(until - after).unwrap_or(usize::MAX);
    read_after(history, after, left.min(limit)).await
}
