//! The traits of the ledger's store. Each implementation is in a file named after its backend;
//! `conformance` is the contract of every implementation.

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
    /// The current head of the ledger, as it is on disk.
    async fn head(&self) -> Result<Head, Error>;

    /// The position of the head as this process knows it, to wait for changes. It may lag behind
    /// [`History::head`], and never runs ahead of what can be read.
    fn watch_head(&self) -> watch::Receiver<Position>;

    /// At most `limit` events after a position, by position, without gaps.
    async fn read(&self, after: Position, limit: usize) -> Result<Vec<StoredEvent>, Error>;

    /// The hashes of the events after a position, in order; at most `limit`.
    async fn leaf_hashes(&self, after: Position, limit: usize) -> Result<Vec<[u8; 32]>, Error> {
        let events = self.read(after, limit).await?;
        Ok(events.iter().map(|event| event.leaf_hash.0).collect())
    }

    /// The users of the events after `after` up to `until`, which the ledger has reached. A user
    /// may be listed more than once. Call it only for ranges whose users fit in memory.
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

    /// At most `limit` events of one user before a version, newest first.
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

    /// The current or last holders of these canonical usernames. A name that nobody ever had has no
    /// claim.
    async fn claims(&self, usernames: &[String]) -> Result<Vec<Claim>, Error>;

    /// At most `limit` claims to usernames after one, by username. Expired claims may be missing.
    async fn claims_after(&self, username: &str, limit: usize) -> Result<Vec<Claim>, Error>;

    /// The outcomes of these commands, by actor and key. Expired outcomes may still be present.
    async fn outcomes(&self, keys: &[OutcomeKey]) -> Result<Vec<Outcome>, Error>;

    /// The position of an event, if it is in the ledger. It answers whether a commit with a lost
    /// answer took place.
    async fn position_of(&self, event: &EventId) -> Result<Option<Position>, Error>;

    /// Whether rows exist where this program stores none: before the first event or username, or
    /// beside the head. A reader that starts at the first event does not see them.
    async fn has_strays(&self) -> Result<bool, Error>;
}

/// The position of the last event recorded at or before a time; 0 when there is none. No index is
/// needed, because the recording time never decreases as the position increases.
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

    /// Waits for other processes and then holds the head for a moment. A committer that was
    /// overtaken uses it, so that a busier process does not overtake it repeatedly. Where only one
    /// process appends, there is nothing to wait for.
    async fn take_turn(&self) -> Result<Turn, Error> {
        Ok(Turn {
            head: self.head().await?,
            held: None,
        })
    }

    /// Deletes outcomes recorded before `outcomes_before` and claims held until before `now`.
    /// Events are never deleted.
    async fn sweep(&self, now: Time, outcomes_before: Time) -> Result<(), Error>;
}

/// The head of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Distinguishes this ledger from every other; created with the ledger.
    pub store_id: String,
    /// The number of restores from a backup. Appends of an earlier epoch are refused.
    pub epoch: u64,
    /// The position of the last event; 0 when there is none.
    pub position: Position,
    /// The time of the last append.
    pub recorded_at: Time,
    /// The number of appends. An append without events does not change the position, but still
    /// decides commands.
    pub appends: u64,
}

/// The exclusive turn to append, until this store has appended or the turn is dropped. Turns are
/// short. Appends are safe with or without a turn, because of the head that a batch expects.
pub struct Turn {
    /// The held head.
    pub head: Head,
    /// The guard that holds it.
    #[expect(dead_code, reason = "it exists only to be dropped")]
    held: Option<Arc<dyn Send + Sync>>,
}

/// The content of one append: all of it is written, or nothing.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The head on which the events were decided. The append takes place only if it is still the
    /// head.
    pub expected: Head,
    /// The head's time afterwards; not before the time of the expected head.
    pub recorded_at: Time,
    /// The events, from `expected.position + 1` on. May be empty when there are outcomes.
    pub events: Vec<StoredEvent>,
    /// The changes of username claims by the events, in order; see [`claims_of`].
    pub claims: Vec<Claim>,
    /// The outcomes of the commands with an idempotency key. An existing outcome of the same actor
    /// and key is replaced: the committer has found it to be expired.
    pub outcomes: Vec<Outcome>,
}

/// A username that a user holds or held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The canonical name.
    pub username: String,
    /// The only user who may take it.
    pub user_id: UserId,
    /// `None` while the user has the name. Afterwards: until this time, other users may not take
    /// it.
    pub held_until: Option<Time>,
}

impl Claim {
    /// Whether a user may take the name at a time.
    pub fn is_free_for(&self, user: &UserId, now: Time) -> bool {
        self.user_id == *user || self.held_until.is_some_and(|until| until <= now)
    }
}

/// The changes of username claims by an event. Pure: the claims of a ledger are the fold of this
/// function.
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

/// The scope of an `Idempotency-Key`: the actor and the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OutcomeKey {
    /// The subject of the caller's token.
    pub actor: String,
    /// The client's `Idempotency-Key`.
    pub key: String,
}

/// The outcome of a command with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The actor and the key.
    pub key: OutcomeKey,
    /// SHA-256 of the request. The same key with another request is refused.
    pub fingerprint: [u8; 32],
    /// The data for repeating the answer, as the committer wrote it.
    pub answer: Vec<u8>,
    /// The time of the decision.
    pub recorded_at: Time,
}

/// The store could not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The database refused or is unavailable; a later attempt may succeed.
    #[error("the ledger cannot be read or written")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The database contains something that this program never writes.
    #[error("the ledger is damaged: {0}")]
    Damaged(String),
    /// Another process has this ledger open.
    #[error(
        "{0} is in use by another process of profile-ledger; stop that process first, or choose another data directory"
    )]
    Locked(std::path::PathBuf),
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

/// A batch was not appended, or it is unknown whether it was.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another process appended first; nothing was written.
    #[error("the head of the ledger has moved")]
    HeadMoved,
    /// A username in the batch belongs to another user; nothing was written. The committer checks
    /// this before, so it is a defect that the database caught.
    #[error("a username in the batch belongs to another user")]
    NameTaken,
    /// An operation failed, possibly after the commit. Look up the batch's first event with
    /// [`History::position_of`] to find out.
    #[error(transparent)]
    Store(#[from] Error),
}
