//! The audit trail: who read whose history. It is neither part of the ledger, which contains
//! changes of users, nor of the read model, which can be rebuilt. Each implementation is in a file
//! named after its backend; `conformance` is the contract of every implementation.

use std::sync::Arc;

use async_trait::async_trait;

use events::{Time, UserId};

#[cfg(test)]
mod conformance;
pub mod postgres;
pub mod sqlite;

/// Recorded reads. A read is written before it is answered, and never changed or deleted.
#[async_trait]
pub trait AuditTrail: Send + Sync + 'static {
    /// Records a read durably and returns its number: after `Ok` it survives a power failure. After
    /// an error it may be recorded all the same.
    async fn record(&self, read: &Read) -> Result<u64, Error>;

    /// The number of recorded reads. Their numbers are 1, 2, 3, … without gaps, and become visible
    /// in that order.
    async fn count(&self) -> Result<u64, Error>;

    /// The recorded reads that match a question.
    async fn list(&self, question: &Question) -> Result<Vec<RecordedRead>, Error>;
}

/// A read of the history of one user, or of all users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The time of the read.
    pub at: Time,
    /// The reader: the subject of the caller's token.
    pub actor: String,
    /// The method and the pattern of the route.
    pub route: String,
    /// The user whose history is read; `None` means all users.
    pub user: Option<UserId>,
    /// The query string, as it was sent.
    pub query: String,
    /// `X-Request-ID`.
    pub request_id: String,
}

/// A recorded read with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRead {
    /// 1, 2, 3, … without a gap.
    pub number: u64,
    /// What was recorded.
    pub read: Read,
}

/// The selection of recorded reads to list.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// Only reads by this caller.
    pub actor: Option<String>,
    /// Only reads of this user's history.
    pub user: Option<UserId>,
    /// The start and direction of the list.
    pub start: Start,
    /// The maximum number of reads.
    pub limit: usize,
}

/// The start and direction of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// After a number, oldest first.
    After(u64),
    /// Before a number, newest first.
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
    /// The database refused or is unavailable; a later attempt may succeed.
    #[error("the audit trail cannot be read or written")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The database contains something that this program never writes.
    #[error("the audit trail is damaged: {0}")]
    Damaged(String),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(Arc::new(error))
    }
}
