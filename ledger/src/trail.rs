//! Who looked at whose history: the trait. It is no part of the ledger, which holds what happened to
//! users, nor of the read model, which may be thrown away. Each implementation is in a file named for its
//! backend, and `conformance` is what every one of them must do.

use std::sync::Arc;

use async_trait::async_trait;

use events::{Time, UserId};

#[cfg(test)]
mod conformance;
pub mod postgres;
pub mod sqlite;

/// What is written before anybody is answered, and never changed or deleted.
#[async_trait]
pub trait AuditTrail: Send + Sync + 'static {
    /// Records a read, durably: after `Ok` it survives a power failure. After an error it may be there
    /// nevertheless. The number of the read.
    async fn record(&self, read: &Read) -> Result<u64, Error>;

    /// How many reads are recorded; their numbers are 1, 2, 3, … without a gap, and become visible in that
    /// order.
    async fn count(&self) -> Result<u64, Error>;

    /// The recorded reads that a question asks for.
    async fn list(&self, question: &Question) -> Result<Vec<RecordedRead>, Error>;
}

/// That somebody looks at the history of a user, or of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// When.
    pub at: Time,
    /// Who: the subject of the caller's token.
    pub actor: String,
    /// The method and the pattern of the route.
    pub route: String,
    /// Whose history; `None` is everybody's.
    pub user: Option<UserId>,
    /// The query string, as it was sent.
    pub query: String,
    /// `X-Request-ID`.
    pub request_id: String,
}

/// A read with its place among all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRead {
    /// 1, 2, 3, … without a gap.
    pub number: u64,
    /// What was recorded.
    pub read: Read,
}

/// Which recorded reads to list.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// Only those of one caller.
    pub actor: Option<String>,
    /// Only those of one user's history.
    pub user: Option<UserId>,
    /// Where to go on.
    pub start: Start,
    /// How many at the most.
    pub limit: usize,
}

/// Where a list begins, and in which direction it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// After a number, the oldest first.
    After(u64),
    /// Before a number, the newest first.
    Before(u64),
}

impl Default for Start {
    fn default() -> Self {
        Self::After(0)
    }
}

/// The trail could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The database refused or is away; trying again later may help.
    #[error("the audit trail cannot be read or written")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The database holds something that this program never writes.
    #[error("the audit trail is damaged: {0}")]
    Damaged(String),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(Arc::new(error))
    }
}
