//! The traits of the read model. Each implementation is in a file named after its backend;
//! `conformance` is the contract of every implementation.

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

/// The owner of a read model without a projector. A projector that [takes
/// over](ReadModel::take_over) as this owner gives the read model up.
pub const NOBODY: &str = "";

/// The reading half of the read model.
#[async_trait]
pub trait Documents: Send + Sync + 'static {
    /// The position up to which the documents are the fold of the ledger, to wait for changes. It
    /// never runs ahead of what a read returns.
    fn watch_applied(&self) -> watch::Receiver<Position>;

    /// The document of a user.
    async fn document(&self, user: &UserId) -> Result<Option<Document>, Error>;

    /// The documents of several users, in one query.
    async fn documents(&self, users: &[UserId]) -> Result<Vec<Document>, Error>;

    /// The documents of the users who currently have these canonical usernames, in one query. When
    /// two documents have the same username, the newer document has it.
    async fn documents_by_username(&self, usernames: &[String]) -> Result<Vec<Document>, Error>;

    /// A page of the matching users; see [`Search`].
    async fn search(&self, search: &Search) -> Result<Vec<Document>, Error>;

    /// The parked users: one of their events could not be folded, and their later events wait.
    async fn parked(&self) -> Result<Vec<Parked>, Error>;
}

/// The writing half of the read model.
#[async_trait]
pub trait ReadModel: Documents {
    /// The position of the checkpoint on disk.
    async fn checkpoint(&self) -> Result<Position, Error>;

    /// Makes a projector the owner of the documents; from then on only it can
    /// [`apply`](Self::apply). Returns the position of the checkpoint on disk.
    async fn take_over(&self, owner: &str) -> Result<Position, Error>;

    /// Whether a projector owns the documents, running or not.
    async fn is_owned(&self) -> Result<bool, Error>;

    /// Every stored row about users, grouped by user: at most `limit` users after an id. Rows
    /// without a valid user are also found. The rows of one user are from one moment.
    async fn stored(&self, from: &str, limit: usize) -> Result<Vec<Stored>, Error>;

    /// Writes documents, parked users and the checkpoint in one transaction, if `owner` is still
    /// the owner and the checkpoint is at the start of the batch.
    async fn apply(&self, owner: &str, batch: &Batch) -> Result<(), ApplyError>;
}

/// A search for users. A user matches when each word of the query is the beginning of one of the
/// user's words (from username, name and surname, folded by [`crate::search::words`]). Results are
/// sorted by the first matched word and then by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// Folded words; each must be the beginning of a word of the user. Without words every user
    /// matches.
    pub words: Vec<String>,
    /// Only users with this expertise.
    pub expertise: Option<String>,
    /// The number of users to skip.
    pub offset: u32,
    /// The maximum number of users to return.
    pub limit: u32,
}

/// The changes of one step of the projection: all are written, or none.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The checkpoint at the start of the step. The step takes place only if it is still the
    /// checkpoint.
    pub from: Position,
    /// The checkpoint afterwards.
    pub to: Position,
    /// The users' new documents.
    pub documents: Vec<Document>,
    /// The users among them whose search words are unchanged; their stored words stay as they are.
    pub same_words: HashSet<UserId>,
    /// Users that cannot be folded any further.
    pub parked: Vec<Parked>,
    /// Users that were parked and now fold again.
    pub unparked: Vec<UserId>,
}

impl Batch {
    /// The documents whose search words may have changed.
    fn reworded(&self) -> impl Iterator<Item = &Document> {
        self.documents
            .iter()
            .filter(|document| !self.same_words.contains(&document.user_id))
    }
}

/// A parked user: one of its events could not be folded, and later events wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// The user.
    pub user_id: UserId,
    /// The position of the event that could not be folded.
    pub from: Position,
    /// The reason.
    pub error: String,
    /// The time when the event was recorded.
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

/// Every stored row about a user, unchecked. The caller decides whether the rows are correct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The user.
    pub user_id: String,
    /// The document and the columns beside it.
    pub document: Option<StoredDocument>,
    /// The search words of the user in byte order, each between line ends.
    pub words: String,
    /// The position and reason for which the user is parked.
    pub parked: Option<StoredParked>,
}

/// The stored reason for which a user is parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredParked {
    /// The position of the event that could not be folded.
    pub from: i64,
    /// The reason.
    pub error: String,
    /// The time when the event was recorded, in milliseconds since 1970.
    pub recorded_at: i64,
}

/// A stored document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDocument {
    /// The user's version.
    pub version: i64,
    /// The position of the last event.
    pub position: i64,
    /// The username by which the document is found.
    pub username: String,
    /// The document as JSON.
    pub text: String,
}

/// The part of the stored rows that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The document, or a column beside it.
    Document,
    /// The search words of the user.
    Words,
}

impl Stored {
    /// The part that differs from what a projector stores for a document. Without a document, every
    /// stored row differs.
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

/// The text of a document, as it is stored.
fn text_of(document: &Document) -> String {
    serde_json::to_string(document).expect("documents are plain strings and numbers")
}

/// A number as a signed integer of a database; positions and versions are far below the limit.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The read model could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The database refused or is unavailable; a later attempt may succeed.
    #[error("the read model cannot be read or written")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The database contains something that this program never writes.
    #[error("the read model is damaged: {0}")]
    Damaged(String),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match error {
            // For example a text that is not UTF-8, or a row that always exists.
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
    /// An operation failed; the transaction is either complete or absent.
    #[error(transparent)]
    ReadModel(#[from] Error),
}
