//! Where the ledger is kept: the traits. Each implementation is in a file named for its backend,
//! and `conformance` is what every one of them must do.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use events::envelope::StoredEvent;
use events::event::UserEvent;
use events::{EventId, Position, Time, UserId, Version};

#[cfg(test)]
mod conformance;
mod newest;
pub mod postgres;
pub mod sqlite;

/// The reading half of the ledger.
#[async_trait]
pub trait History: Send + Sync + 'static {
    /// The end of the ledger as it is on disk now.
    async fn head(&self) -> Result<Head, Error>;

    /// The position of the head as this process knows it, for waiting on changes. It may lag behind
    /// [`History::head`], and never runs ahead of what can be read.
    fn watch_head(&self) -> watch::Receiver<Position>;

    /// At most `limit` events after a position, by position, without a gap.
    async fn read(&self, after: Position, limit: usize) -> Result<Vec<StoredEvent>, Error>;

    /// The hashes of the events after a position, in order; at most `limit`.
    async fn leaf_hashes(&self, after: Position, limit: usize) -> Result<Vec<[u8; 32]>, Error> {
        let events = self.read(after, limit).await?;
        Ok(events.iter().map(|event| event.leaf_hash.0).collect())
    }

    /// Whose the events after a position up to another one are, which the ledger has reached. A user may be named
    /// more than once. Never for so many that they should not be in memory at once.
    async fn users_between(&self, after: Position, until: Position) -> Result<Vec<UserId>, Error> {
        let count = usize::try_from(until - after).unwrap_or(usize::MAX);
        let events = self.read(after, count).await?;
        Ok(events.iter().map(|event| event.user_id).collect())
    }

    /// At most `limit` events of one user after a version, by version.
    async fn read_user(
        &self,
        user: &UserId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, Error>;

    /// At most `limit` events of one user before a version, the newest first.
    async fn read_user_back(
        &self,
        user: &UserId,
        before: Version,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, Error>;

    /// At most `limit` events of some users after a position, by position, in one query.
    async fn read_users(
        &self,
        users: &[UserId],
        after: Position,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, Error>;

    /// Who holds, or last held, these canonical usernames. A name nobody ever had has no claim.
    async fn claims(&self, usernames: &[String]) -> Result<Vec<Claim>, Error>;

    /// Claims to usernames after one, by username; at most `limit`. Those past their time may be gone.
    async fn claims_after(&self, username: &str, limit: usize) -> Result<Vec<Claim>, Error>;

    /// What came of these commands, by actor and key. Outcomes past their time may still be there.
    async fn outcomes(&self, keys: &[OutcomeKey]) -> Result<Vec<Outcome>, Error>;

    /// Where an event is, if it is in the ledger: settles whether a commit whose answer was lost
    /// took place.
    async fn position_of(&self, event: &EventId) -> Result<Option<Position>, Error>;

    /// Whether something is kept where this program keeps nothing: before the first event or username, or beside
    /// the head. Whoever reads from the first on does not meet it.
    async fn has_strays(&self) -> Result<bool, Error>;
}

/// The position of the last event that was recorded at or before a time; 0 when there is none. Needs no
/// index: the time of recording never goes back as the position rises.
pub async fn position_at(history: &dyn History, time: Time) -> Result<Position, Error> {
    let (mut low, mut high) = (0, history.head().await?.position);
    while low < high {
        let middle = high - (high - low) / 2;
        let events = history.read(middle - 1, 1).await?;
        let event = events
            .first()
            .filter(|event| event.position == middle)
            .ok_or_else(|| Error::Damaged(format!("position {middle} is missing")))?;
        if event.recorded_at <= time {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(low)
}

/// The appending half of the ledger.
#[async_trait]
pub trait EventStore: History {
    /// Appends a batch in one transaction, durably: after `Ok` it survives a power failure.
    async fn append(&self, batch: &Batch) -> Result<(), AppendError>;

    /// Waits for the others and then holds the head still, for a moment: for a committer that was
    /// overtaken, and would be again and again by a busier process. Where only one process appends, there
    /// is nobody to wait for.
    async fn take_turn(&self) -> Result<Turn, Error> {
        Ok(Turn {
            head: self.head().await?,
            held: None,
        })
    }

    /// Forgets outcomes recorded before `outcomes_before`, and claims held until before `now`.
    /// Events are never forgotten.
    async fn sweep(&self, now: Time, outcomes_before: Time) -> Result<(), Error>;
}

/// The end of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Names this ledger apart from every other; made with it.
    pub store_id: String,
    /// Counts restorations from a backup: appends of an earlier epoch are refused.
    pub epoch: u64,
    /// The position of the last event; 0 when there is none.
    pub position: Position,
    /// When the last append took place.
    pub recorded_at: Time,
    /// Counts appends: one without events leaves the position, and still decided something.
    pub appends: u64,
}

/// A turn to append: nobody else does until this store has, or until it is dropped. It is short; the
/// head that a batch expects is what makes an append safe, with a turn or without.
pub struct Turn {
    /// The head that is held.
    pub head: Head,
    /// What holds it.
    #[expect(dead_code, reason = "it is only there to be dropped")]
    held: Option<Arc<dyn Send + Sync>>,
}

/// What one append writes: all of it or nothing.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The head that the events were decided on: the append takes place only if it still is.
    pub expected: Head,
    /// The head's time afterwards: not before the expected head's.
    pub recorded_at: Time,
    /// The events, at `expected.position + 1` and on. May be empty when there are outcomes.
    pub events: Vec<StoredEvent>,
    /// What the events do to usernames, in order; see [`claims_of`].
    pub claims: Vec<Claim>,
    /// What the commands with an idempotency key came to. An outcome of the same actor and key
    /// that is already there is replaced: the committer has found it past its time.
    pub outcomes: Vec<Outcome>,
}

/// That a user holds a username, or held it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The canonical name.
    pub username: String,
    /// The only user who may take it.
    pub user_id: UserId,
    /// `None` while it is the user's name; else until when others may not take it.
    pub held_until: Option<Time>,
}

impl Claim {
    /// Whether a user may take the name at a time.
    pub fn is_free_for(&self, user: &UserId, now: Time) -> bool {
        self.user_id == *user || self.held_until.is_some_and(|until| until <= now)
    }
}

/// What an event does to usernames. Pure: the claims of a ledger are the fold of this.
pub fn claims_of(user: &UserId, event: &UserEvent) -> Vec<Claim> {
    match event {
        UserEvent::UserRegistered(registered) => {
            vec![Claim {
                username: registered.username.clone(),
                user_id: *user,
                held_until: None,
            }]
        }
        UserEvent::UsernameChanged(changed) => vec![
            Claim {
                username: changed.before.clone(),
                user_id: *user,
                held_until: Some(changed.held_until),
            },
            Claim {
                username: changed.after.clone(),
                user_id: *user,
                held_until: None,
            },
        ],
        UserEvent::ProfileUpdated(_) | UserEvent::PhotoChanged(_) => Vec::new(),
    }
}

/// Whose command, and which: an `Idempotency-Key` is scoped to its actor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OutcomeKey {
    /// The subject of the caller's token.
    pub actor: String,
    /// The client's `Idempotency-Key`.
    pub key: String,
}

/// What a command with an idempotency key came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whose command, and which.
    pub key: OutcomeKey,
    /// SHA-256 of the request: the same key with another request is refused.
    pub fingerprint: [u8; 32],
    /// What is needed to answer again, as the committer wrote it.
    pub answer: Vec<u8>,
    /// When it was decided.
    pub recorded_at: Time,
}

/// The store could not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The database refused or is away; trying again later may help.
    #[error("the ledger cannot be read or written")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The database holds something that this program never writes.
    #[error("the ledger is damaged: {0}")]
    Damaged(String),
    /// Another process has this ledger open.
    #[error(
        "{0} is in use by another process of profile-ledger; stop that one first, or choose another data directory"
    )]
    Locked(std::path::PathBuf),
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

/// A batch was not appended, or it is not known whether it was.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another process appended first; nothing was written.
    #[error("the head of the ledger has moved")]
    HeadMoved,
    /// A username in the batch belongs to somebody else; nothing was written. The committer checks
    /// before, so this is a defect that the database caught.
    #[error("a username in the batch belongs to another user")]
    NameTaken,
    /// Something failed, possibly after the commit: [`History::position_of`] the batch's first
    /// event tells.
    #[error(transparent)]
    Store(#[from] Error),
}
