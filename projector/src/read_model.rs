//! Where documents are kept: the traits. Each implementation is in a file named for its backend,
//! and `conformance` is what every one of them must do.

use std::sync::Arc;

use async_trait::async_trait;
use events::{Document, Position, Time, UserId};
use tokio::sync::watch;

#[cfg(test)]
mod conformance;
pub mod postgres;
pub mod sqlite;

/// The owner of documents that no projector owns: whoever [takes over](ReadModel::take_over) as this one
/// gives them up.
pub const NOBODY: &str = "";

/// The reading half of the read model.
#[async_trait]
pub trait Documents: Send + Sync + 'static {
    /// The position up to which the documents are the fold of the ledger, for waiting on changes.
    /// It never runs ahead of what a read finds.
    fn watch_applied(&self) -> watch::Receiver<Position>;

    /// The document of a user.
    async fn document(&self, user: &UserId) -> Result<Option<Document>, Error>;

    /// The document of the user who has a canonical username now.
    async fn document_by_username(&self, username: &str) -> Result<Option<Document>, Error>;

    /// A page of the users that match; see [`Search`].
    async fn search(&self, search: &Search) -> Result<Vec<Document>, Error>;

    /// The users whose events wait because one of them could not be folded.
    async fn parked(&self) -> Result<Vec<Parked>, Error>;
}

/// The writing half of the read model.
#[async_trait]
pub trait ReadModel: Documents {
    /// The position that is on disk.
    async fn checkpoint(&self) -> Result<Position, Error>;

    /// Makes a projector the owner of the documents: from now on it alone can [`apply`](Self::apply).
    /// The position that is on disk.
    async fn take_over(&self, owner: &str) -> Result<Position, Error>;

    /// Whether a projector owns the documents, whether it lives or not.
    async fn is_owned(&self) -> Result<bool, Error>;

    /// The documents of some users, in one query.
    async fn documents(&self, users: &[UserId]) -> Result<Vec<Document>, Error>;

    /// Writes documents, parked users and the checkpoint in one transaction, if `owner` still is the
    /// owner and the checkpoint is where the batch begins.
    async fn apply(&self, owner: &str, batch: &Batch) -> Result<(), ApplyError>;
}

/// What to look for: users one of whose words (of username, name or surname, folded by
/// [`crate::search::words`]) begins with each word of the query, in the order of the first word
/// that matched and then of their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// Folded words; each must be the beginning of a word of the user. Empty: every user.
    pub words: Vec<String>,
    /// Only users with this expertise.
    pub expertise: Option<String>,
    /// How many to pass over.
    pub offset: u32,
    /// How many to return at the most.
    pub limit: u32,
}

/// What one step of the projection writes: all of it or nothing.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The checkpoint that the step began at: it takes place only if it still is.
    pub from: Position,
    /// The checkpoint afterwards.
    pub to: Position,
    /// The users' new documents.
    pub documents: Vec<Document>,
    /// Users that cannot be folded any further.
    pub parked: Vec<Parked>,
    /// Users that were parked and fold again.
    pub unparked: Vec<UserId>,
}

/// A user whose events wait because one of them could not be folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Who.
    pub user_id: UserId,
    /// The position of the event that could not be folded.
    pub from: Position,
    /// Why.
    pub error: String,
    /// When the event was recorded.
    pub recorded_at: Time,
}

/// The read model could not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The database refused or is away; trying again later may help.
    #[error("the read model cannot be read or written")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The database holds something that this program never writes.
    #[error("the read model is damaged: {0}")]
    Damaged(String),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(Arc::new(error))
    }
}

/// A step of the projection was not written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Another projector owns this read model, or has moved the checkpoint.
    #[error("another projector has taken the read model over")]
    NotOwner,
    /// Something failed; nothing may be assumed but that the transaction is whole or absent.
    #[error(transparent)]
    ReadModel(#[from] Error),
}
