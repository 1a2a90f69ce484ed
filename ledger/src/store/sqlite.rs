//! The ledger in one SQLite file.
//!
//! One connection writes and a few read, in WAL mode, so reads never wait for a commit. A lock on a
//! file beside the database excludes other processes: only this process knows the head.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::error::ErrorKind;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteJournalMode, SqlitePool, SqliteRow, SqliteSynchronous};
use sqlx::{Column as _, ColumnIndex, QueryBuilder, Row as _, Sqlite, SqliteConnection};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::newest::Newest;
use super::{AppendError, Batch, Claim, Error, EventStore, Head, History, Outcome, OutcomeKey};
use crate::fail_point::{self, FailPoint};
use crate::migrations::migrator;
use crate::sqlite::{Checkpointer, Transaction, options, pool, signed, writer};
use events::envelope::{LeafHash, StoredEvent};
use events::{EventId, Position, Time, UserId, Version};

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    migrator(&[(
        "0001_ledger.sql",
        include_str!("../../../migrations/sqlite/ledger/0001_ledger.sql"),
    )])
});

/// Connections for reads.
const READERS: u32 = 4;
/// Rows per INSERT: few enough for the parameter limit, and for the number of prepared statements.
const ROWS: usize = 64;
/// How often the head is read when another process moves it.
const FOLLOW: Duration = Duration::from_millis(100);

/// The columns of an event, in the order in which rows are written and read.
macro_rules! event_columns {
    () => {
        "position, event_id, user_id, version, event_type, schema_version, recorded_at, envelope, leaf_hash"
    };
}

macro_rules! select_events {
    ($rest:literal) => {
        concat!("SELECT ", event_columns!(), " FROM events ", $rest)
    };
}

macro_rules! select_claims {
    ($rest:literal) => {
        concat!(
            "SELECT username, user_id, held_until FROM username_claims ",
            $rest
        )
    };
}

/// The ledger in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    head: watch::Sender<Position>,
    newest: Newest,
    /// `None` when the store is read-only.
    checkpointer: Option<Checkpointer>,
    /// Held as long as the store is open; the operating system releases it when the process dies.
    /// `None` when the store is read-only.
    _lock: Option<File>,
    /// Notices the appends of the process that has the lock, if that is another one.
    _follower: JoinSet<()>,
}

impl SqliteStore {
    /// Opens the ledger in a file, and creates the file and its folder if they are missing.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(unavailable)?;
        }
        let lock = lock(path)?;
        let options = options(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // Every commit reaches the disk before it is answered.
            .synchronous(SqliteSynchronous::Full)
            .pragma("recursive_triggers", "ON");
        let writer = writer(options.clone()).await?;
        MIGRATIONS.run(&writer).await.map_err(unavailable)?;
        let checkpointer = Checkpointer::start(&options).await?;
        let readers = pool(READERS)
            .connect_with(options.create_if_missing(false).read_only(true))
            .await?;
        let store = Self {
            writer,
            readers,
            head: watch::Sender::new(0),
            newest: Newest::default(),
            checkpointer: Some(checkpointer),
            _lock: Some(lock),
            _follower: JoinSet::new(),
        };
        store.head().await?;
        Ok(store)
    }

    /// Opens the ledger in a file for reading only, beside the process that has it open, or without
    /// one. SQLite itself refuses changes. Without such a process, SQLite creates its two files
    /// beside the ledger (`-wal`, `-shm`) if they are missing.
    pub async fn open_to_read(path: &Path) -> Result<Arc<dyn History>, Error> {
        Ok(Arc::new(Self::read_only(path).await?))
    }

    async fn read_only(path: &Path) -> Result<Self, Error> {
        let options = options(path).read_only(true);
        let readers = pool(READERS).connect_with(options).await?;
        let head = watch::Sender::new(0);
        let mut follower = JoinSet::new();
        follower.spawn(follow(readers.clone(), head.clone()));
        let store = Self {
            writer: readers.clone(),
            readers,
            head,
            newest: Newest::default(),
            checkpointer: None,
            _lock: None,
            _follower: follower,
        };
        store.head().await?;
        Ok(store)
    }

    /// Records the head's position and wakes waiters. The position never goes back.
    fn saw(&self, position: Position) {
        saw(&self.head, position);
    }
}

fn saw(head: &watch::Sender<Position>, position: Position) {
    head.send_if_modified(|head| {
        let moved = position > *head;
        *head = position.max(*head);
        moved
    });
}

/// Reports a head that another process moves. Reads report errors.
async fn follow(readers: SqlitePool, head: watch::Sender<Position>) {
    loop {
        tokio::time::sleep(FOLLOW).await;
        let query = sqlx::query("SELECT position FROM ledger_head");
        if let Ok(row) = query.fetch_one(&readers).await
            && let Ok(position) = unsigned(&row, "position")
        {
            saw(&head, position);
        }
    }
}

fn lock(path: &Path) -> Result<File, Error> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(unavailable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(unavailable(error)),
    }
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Unavailable(Arc::new(error))
}

fn unsigned(row: &SqliteRow, column: impl ColumnIndex<SqliteRow> + Copy) -> Result<u64, Error> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|_| {
        let column = row.column(column).name();
        Error::Damaged(format!("column {column} holds {number}"))
    })
}

fn event(row: &SqliteRow) -> Result<StoredEvent, Error> {
    // By column index, which is the same in every statement that reads events. Looking up names
    // takes longer than reading the values.
    let position = unsigned(row, 0)?;
    let damaged = |what: &str| Error::Damaged(format!("position {position}: bad {what}"));
    let envelope: Vec<u8> = row.try_get(7)?;
    let leaf_hash: &[u8] = row.try_get(8)?;
    Ok(StoredEvent {
        position,
        event_id: row
            .try_get::<&str, _>(1)?
            .parse()
            .map_err(|_| damaged("event id"))?,
        user_id: row
            .try_get::<&str, _>(2)?
            .parse()
            .map_err(|_| damaged("user id"))?,
        version: unsigned(row, 3)?,
        event_type: row.try_get(4)?,
        schema_version: u32::try_from(unsigned(row, 5)?).map_err(|_| damaged("schema version"))?,
        recorded_at: Time::from_millis(row.try_get(6)?),
        envelope: envelope.into(),
        leaf_hash: LeafHash(leaf_hash.try_into().map_err(|_| damaged("leaf hash"))?),
    })
}

fn events(rows: &[SqliteRow]) -> Result<Vec<StoredEvent>, Error> {
    rows.iter().map(event).collect()
}

fn claim(row: &SqliteRow) -> Result<Claim, Error> {
    Ok(Claim {
        username: row.try_get("username")?,
        user_id: row
            .try_get::<&str, _>("user_id")?
            .parse()
            .map_err(|_| Error::Damaged("a username claim has a bad user id".to_owned()))?,
        held_until: row
            .try_get::<Option<i64>, _>("held_until")?
            .map(Time::from_millis),
    })
}

fn json(list: &impl serde::Serialize) -> String {
    serde_json::to_string(list).expect("strings are JSON")
}

#[async_trait]
impl History for SqliteStore {
    async fn head(&self) -> Result<Head, Error> {
        let row =
            sqlx::query("SELECT store_id, epoch, position, recorded_at, appends FROM ledger_head")
                .fetch_one(&self.readers)
                .await?;
        let head = Head {
            store_id: row.try_get("store_id")?,
            epoch: unsigned(&row, "epoch")?,
            position: unsigned(&row, "position")?,
            recorded_at: Time::from_millis(row.try_get("recorded_at")?),
            appends: unsigned(&row, "appends")?,
        };
        self.saw(head.position);
        Ok(head)
    }

    fn watch_head(&self) -> watch::Receiver<Position> {
        self.head.subscribe()
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        if let Some(events) = self.newest.read(after, limit) {
            return Ok(events);
        }
        let rows = sqlx::query(select_events!(
            "WHERE position > ? ORDER BY position LIMIT +?"
        ))
        .bind(signed(after))
        .bind(signed(limit as u64))
        .fetch_all(&self.readers)
        .await?;
        events(&rows)
    }

    async fn leaf_hashes(&self, after: Position, limit: usize) -> Result<Vec<[u8; 32]>, Error> {
        let rows = sqlx::query(
            "SELECT leaf_hash FROM events WHERE position > ? ORDER BY position LIMIT +?",
        )
        .bind(signed(after))
        .bind(signed(limit as u64))
        .fetch_all(&self.readers)
        .await?;
        let hash = |row: &SqliteRow| {
            let hash: &[u8] = row.try_get("leaf_hash")?;
            hash.try_into()
                .map_err(|_| Error::Damaged("a leaf hash has a wrong length".to_owned()))
        };
        rows.iter().map(hash).collect()
    }

    async fn read_user(
        &self,
        user: &UserId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        let rows = sqlx::query(select_events!(
            "WHERE user_id = ? AND version > ? ORDER BY version LIMIT +?"
        ))
        .bind(user.to_string())
        .bind(signed(after))
        .bind(signed(limit as u64))
        .fetch_all(&self.readers)
        .await?;
        events(&rows)
    }

    async fn read_user_back(
        &self,
        user: &UserId,
        before: Version,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        let rows = sqlx::query(select_events!(
            "WHERE user_id = ? AND version < ? ORDER BY version DESC LIMIT +?"
        ))
        .bind(user.to_string())
        .bind(signed(before))
        .bind(signed(limit as u64))
        .fetch_all(&self.readers)
        .await?;
        events(&rows)
    }

    async fn read_users(
        &self,
        users: &[UserId],
        after: Position,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        let rows = sqlx::query(select_events!("WHERE user_id IN (SELECT value FROM json_each(?)) AND position > ? ORDER BY position LIMIT +?"))
        .bind(json(&users))
        .bind(signed(after))
        .bind(signed(limit as u64))
        .fetch_all(&self.readers)
        .await?;
        events(&rows)
    }

    async fn claims(&self, usernames: &[String]) -> Result<Vec<Claim>, Error> {
        let rows = sqlx::query(select_claims!(
            "WHERE username IN (SELECT value FROM json_each(?))"
        ))
        .bind(json(&usernames))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(claim).collect()
    }

    async fn claims_after(&self, username: &str, limit: usize) -> Result<Vec<Claim>, Error> {
        let rows = sqlx::query(select_claims!(
            "WHERE username > ? ORDER BY username LIMIT +?"
        ))
        .bind(username)
        .bind(signed(limit as u64))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(claim).collect()
    }

    async fn outcomes(&self, keys: &[OutcomeKey]) -> Result<Vec<Outcome>, Error> {
        let pairs: Vec<_> = keys.iter().map(|key| (&key.actor, &key.key)).collect();
        let rows = sqlx::query(
            "SELECT o.actor, o.key, o.fingerprint, o.answer, o.recorded_at FROM json_each(?) AS wanted \
             JOIN idempotency AS o ON o.actor = wanted.value ->> 0 AND o.key = wanted.value ->> 1",
        )
        .bind(json(&pairs))
        .fetch_all(&self.readers)
        .await?;
        let outcome = |row: &SqliteRow| {
            Ok(Outcome {
                key: OutcomeKey {
                    actor: row.try_get("actor")?,
                    key: row.try_get("key")?,
                },
                fingerprint: row
                    .try_get::<&[u8], _>("fingerprint")?
                    .try_into()
                    .map_err(|_| Error::Damaged("an outcome has a bad fingerprint".to_owned()))?,
                answer: row.try_get("answer")?,
                recorded_at: Time::from_millis(row.try_get("recorded_at")?),
            })
        };
        rows.iter().map(outcome).collect()
    }

    async fn position_of(&self, event: &EventId) -> Result<Option<Position>, Error> {
        let row = sqlx::query("SELECT position FROM events WHERE event_id = ?")
            .bind(event.to_string())
            .fetch_optional(&self.readers)
            .await?;
        let position = row
            .as_ref()
            .map(|row| unsigned(row, "position"))
            .transpose()?;
        // The answer to an append of it may have been lost.
        self.saw(position.unwrap_or(0));
        Ok(position)
    }

    async fn has_strays(&self) -> Result<bool, Error> {
        let row = sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM events WHERE position < 1) \
             OR EXISTS (SELECT 1 FROM username_claims WHERE username = '') \
             OR EXISTS (SELECT 1 FROM ledger_head WHERE only_row <> 1)",
        )
        .fetch_one(&self.readers)
        .await?;
        Ok(row.try_get(0)?)
    }
}

#[async_trait]
impl EventStore for SqliteStore {
    async fn append(&self, batch: &Batch) -> Result<(), AppendError> {
        let mut transaction = Transaction::of(&self.writer).await.map_err(Error::from)?;
        let appended = append(&mut transaction, batch).await;
        if let Err(error) = appended {
            transaction.roll_back().await;
            self.newest.forget();
            return Err(error);
        }
        transaction.committed();
        fail_point::pass(FailPoint::AfterCommit);
        self.newest.appended(&batch.events);
        self.saw(batch.expected.position + batch.events.len() as u64);
        if let Some(checkpointer) = &self.checkpointer {
            checkpointer.committed().await;
        }
        Ok(())
    }

    async fn sweep(&self, now: Time, outcomes_before: Time) -> Result<(), Error> {
        sqlx::query("DELETE FROM idempotency WHERE recorded_at < ?")
            .bind(outcomes_before.millis())
            .execute(&self.writer)
            .await?;
        sqlx::query("DELETE FROM username_claims WHERE held_until < ?")
            .bind(now.millis())
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}

/// Writes a batch and commits. Most batches are one script.
async fn append(transaction: &mut Transaction, batch: &Batch) -> Result<(), AppendError> {
    let expected = &batch.expected;
    let mut chunks = batch.events.chunks(ROWS);
    // A moved head makes the value NULL, which the column refuses.
    let mut script = QueryBuilder::new(
        "BEGIN IMMEDIATE; UPDATE ledger_head SET appends = appends + 1, position = iif(position = ",
    );
    script
        .push_bind(signed(expected.position))
        .push(" AND appends = ")
        .push_bind(signed(expected.appends))
        .push(" AND epoch = ")
        .push_bind(signed(expected.epoch))
        .push(" AND store_id = ")
        .push_bind(expected.store_id.clone())
        .push(", ")
        .push_bind(signed(expected.position + batch.events.len() as u64))
        .push(", NULL), recorded_at = ")
        .push_bind(batch.recorded_at.millis())
        .push("; ");
    push_events(&mut script, chunks.next().unwrap_or_default());
    let is_all = batch.events.len() <= ROWS && batch.claims.is_empty() && batch.outcomes.is_empty();
    if is_all {
        fail_point::pass(FailPoint::BeforeCommit);
        script.push("COMMIT");
    }
    transaction.run(&mut script).await.map_err(refused)?;
    if is_all {
        return Ok(());
    }
    for events in chunks {
        let mut script = QueryBuilder::new("");
        push_events(&mut script, events);
        transaction.run(&mut script).await.map_err(Error::from)?;
    }
    for claim in &batch.claims {
        if !claim_name(transaction.connection(), claim, batch.recorded_at).await? {
            return Err(AppendError::NameTaken);
        }
    }
    for outcome in &batch.outcomes {
        write_outcome(transaction.connection(), outcome).await?;
    }
    fail_point::pass(FailPoint::BeforeCommit);
    let mut script = QueryBuilder::new("COMMIT");
    transaction.run(&mut script).await.map_err(Error::from)?;
    Ok(())
}

/// The reason why the head was not moved and the first events were not written.
fn refused(error: sqlx::Error) -> AppendError {
    let is_moved = error
        .as_database_error()
        .is_some_and(|error| error.kind() == ErrorKind::NotNullViolation);
    if is_moved {
        AppendError::HeadMoved
    } else {
        AppendError::Store(error.into())
    }
}

fn push_events(script: &mut QueryBuilder<Sqlite>, events: &[StoredEvent]) {
    if events.is_empty() {
        return;
    }
    script
        .push("INSERT INTO events (")
        .push(event_columns!())
        .push(") ")
        .push_values(events, |mut row, event| {
            row.push_bind(signed(event.position))
                .push_bind(event.event_id.to_string())
                .push_bind(event.user_id.to_string())
                .push_bind(signed(event.version))
                .push_bind(event.event_type.clone())
                .push_bind(i64::from(event.schema_version))
                .push_bind(event.recorded_at.millis())
                .push_bind(event.envelope.to_vec())
                .push_bind(event.leaf_hash.0.to_vec());
        })
        .push("; ");
}

/// Returns `false` when the name belongs to another user.
async fn claim_name(
    connection: &mut SqliteConnection,
    claim: &Claim,
    now: Time,
) -> Result<bool, Error> {
    let done = sqlx::query(
        "INSERT INTO username_claims (username, user_id, held_until) VALUES (?1, ?2, ?3) \
         ON CONFLICT (username) DO UPDATE SET user_id = ?2, held_until = ?3 \
         WHERE username_claims.user_id = ?2 OR username_claims.held_until <= ?4",
    )
    .bind(&claim.username)
    .bind(claim.user_id.to_string())
    .bind(claim.held_until.map(Time::millis))
    .bind(now.millis())
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

async fn write_outcome(connection: &mut SqliteConnection, outcome: &Outcome) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO idempotency (actor, key, fingerprint, answer, recorded_at) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (actor, key) DO UPDATE SET fingerprint = ?3, answer = ?4, recorded_at = ?5",
    )
    .bind(&outcome.key.actor)
    .bind(&outcome.key.key)
    .bind(&outcome.fingerprint[..])
    .bind(&outcome.answer)
    .bind(outcome.recorded_at.millis())
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests;
