//! Long answers: streams and exports. Their number is limited, streams share one reader of the ledger, and streams end
//! before the process stops.

use std::sync::Arc;

use events::Position;
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::openapi::Refuses;
use http_kit::text::Text;
use ledger::feed::{SharedFeed, Tail};
use ledger::store::History;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The most streams of events at once. Refused clients try again, at this process or another one.
const FOLLOWERS: usize = 64;
/// The most exports at once.
const EXPORTS: usize = 8;
/// The most events in memory for a stream.
const BATCH: usize = 256;

/// The slots and the reader that long answers share.
#[derive(Clone)]
pub struct Streams {
    tail: Arc<Tail>,
    followers: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    stopping: CancellationToken,
}

impl Streams {
    /// Streams of a ledger. They end when the process is about to stop. Exports are finished like other requests.
    pub fn new(history: Arc<dyn History>, stopping: CancellationToken) -> Self {
        Self {
            tail: Tail::new(history, BATCH),
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
            exports: Arc::new(Semaphore::new(EXPORTS)),
            stopping,
        }
    }

    /// A slot for a stream of events; taken as long as it is held.
    pub(crate) fn follower(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        slot(&self.followers)
    }

    /// A slot for an export; taken as long as it is held.
    pub(crate) fn export(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        slot(&self.exports)
    }

    /// Events after a position, as they come.
    pub(crate) fn feed(&self, after: Position) -> SharedFeed {
        self.tail.follow(after)
    }

    /// Is cancelled when the process is about to stop.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }
}

fn slot(slots: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
    Arc::clone(slots).try_acquire_owned().map_err(|_| full())
}

fn full() -> ApiError {
    ApiError::new(Code::TooManyStreams)
        .because(Text::new("TOO_MANY_STREAMS"))
        .retry_after(5)
}

impl Refuses for Streams {
    fn refusals() -> Vec<ApiError> {
        vec![full()]
    }
}
