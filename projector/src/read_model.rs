//! Where documents are kept: the traits. Each implementation is in a file named for its backend,
//! and `conformance` is what every one of them must do.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use events::{Document, Position, StoredEvent, Time, UserId};
use tokio::sync::watch;

use crate::search::words_of;

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

    /// The documents of some users, in one query.
    async fn documents(&self, users: &[UserId]) -> Result<Vec<Document>, Error>;

    /// The documents of the users who have some canonical usernames now, in one query. Of two documents with one
    /// username, the newer one has it.
    async fn documents_by_username(&self, usernames: &[String]) -> Result<Vec<Document>, Error>;

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

    /// Everything that is kept of users as it is kept, by user: at most so many, from an id on. Nobody has an empty
    /// one, but what is kept of nobody is found by that, too. What is kept of one user is of one moment.
    async fn stored(&self, from: &str, limit: usize) -> Result<Vec<Stored>, Error>;

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
    /// Those of them by whose words nothing has changed: what is kept of these stays as it is.
    pub same_words: HashSet<UserId>,
    /// Users that cannot be folded any further.
    pub parked: Vec<Parked>,
    /// Users that were parked and fold again.
    pub unparked: Vec<UserId>,
}

impl Batch {
    /// The documents whose words may have changed.
    fn reworded(&self) -> impl Iterator<Item = &Document> {
        self.documents
            .iter()
            .filter(|document| !self.same_words.contains(&document.user_id))
    }
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

impl Parked {
    /// The user of an event that cannot be folded.
    pub(crate) fn at(event: &StoredEvent, error: String) -> Self {
        Self {
            user_id: event.user_id,
            from: event.position,
            error,
            recorded_at: event.recorded_at,
        }
    }
}

/// Everything that is kept of a user, as it is kept: whether it is what it should be is for the reader to
/// say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Who.
    pub user_id: String,
    /// The document and the columns beside it.
    pub document: Option<StoredDocument>,
    /// The words by which the user is found, in the order of their bytes, between line ends.
    pub words: String,
    /// Where and why the user waits.
    pub parked: Option<StoredParked>,
}

/// Why a user waits, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredParked {
    /// The position of the event that could not be folded.
    pub from: i64,
    /// Why.
    pub error: String,
    /// When the event was recorded, in milliseconds since 1970.
    pub recorded_at: i64,
}

/// A document as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDocument {
    /// The user's version.
    pub version: i64,
    /// The position of the last event.
    pub position: i64,
    /// By which the document is found.
    pub username: String,
    /// The document as JSON.
    pub text: String,
}

/// What of it is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The document, or a column beside it.
    Document,
    /// The words by which the user is found.
    Words,
}

impl Stored {
    /// What is not as a projector keeps a document; without one, as it keeps nothing.
    pub fn differs_from(&self, document: Option<&Document>) -> Option<Part> {
        let wanted = document.map(|document| StoredDocument {
            version: signed(document.version),
            position: signed(document.position),
            username: document.username.clone(),
            text: text_of(document),
        });
        let words = document.map(words_of).unwrap_or_default().join("\n");
        if self.document != wanted {
            Some(Part::Document)
        } else if self.words != words {
            Some(Part::Words)
        } else {
            None
        }
    }
}

/// A document as it is kept.
fn text_of(document: &Document) -> String {
    serde_json::to_string(document).expect("documents are plain strings and numbers")
}

/// Databases' integers are signed; positions and versions are far from their limit.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
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
        match error {
            // What is never written, such as a text that is none, and what is always there.
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound => {
                Self::Damaged(error.to_string())
            }
            error => Self::Unavailable(Arc::new(error)),
        }
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
