//! The ledger in a PostgreSQL database, which many processes may share.
//!
//! An append is one statement. It moves the head by compare-and-swap from the head that the batch
//! was decided on; only then are events, claims and outcomes inserted. A single process therefore
//! pays one round trip and one flush to disk. Reads have their own connections and never delay an
//! append.

use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgRow;
use sqlx::{Column as _, ColumnIndex, Row as _};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::newest::Newest;
use super::{
    AppendError, Batch, Claim, Error, EventStore, Head, History, Outcome, OutcomeKey, Turn,
};
use crate::fail_point::{self, FailPoint};
use crate::migrations::migrator;
use crate::postgres::{Database, Followed, Transaction, is_migrated, signed};
use events::envelope::{LeafHash, StoredEvent};
use events::{EventId, Position, Time, UserId, Version};

use append::{append, refused};

mod append;

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    migrator(&[(
        "0001_ledger.sql",
        include_str!("../../../migrations/postgres/ledger/0001_ledger.sql"),
    )])
});
const SCHEMA: &str = "ledger";

/// Connections for appends, sweeps and turns.
const WRITERS: u32 = 2;
/// Connections for reads.
const READERS: u32 = 6;
/// Rows deleted by one statement of a sweep.
const SWEPT: u32 = 5_000;

/// The columns of an event, in the order in which rows are read.
macro_rules! event_columns {
    () => {
        "position, event_id::text, user_id, version, event_type, schema_version, recorded_at, envelope, leaf_hash"
    };
}

/// Reads user by user along the index of users and versions. When all users are queried by position, PostgreSQL
/// reads the whole ledger if it estimates that there are many. `+ 0` excludes the index of positions, which
/// PostgreSQL would read to its end for each user.
const READ_USERS: &str = concat!(
    "SELECT ",
    event_columns!(),
    " FROM unnest($1::text[]) AS u(id) CROSS JOIN LATERAL (
    SELECT * FROM ledger.events AS e WHERE e.user_id = u.id AND e.position + 0 > $2 ORDER BY e.version LIMIT $3
) AS e
ORDER BY position LIMIT $3"
);

macro_rules! select_head {
    ($rest:literal) => {
        concat!(
            "SELECT store_id, epoch, position, recorded_at, appends FROM ledger.ledger_head",
            $rest
        )
    };
}

macro_rules! select_events {
    ($rest:literal) => {
        concat!("SELECT ", event_columns!(), " FROM ledger.events ", $rest)
    };
}

macro_rules! select_claims {
    ($rest:literal) => {
        concat!(
            "SELECT username, user_id, held_until FROM ledger.username_claims ",
            $rest
        )
    };
}

/// The ledger in a PostgreSQL database.
pub struct PostgresStore {
    writers: Database,
    readers: Arc<Database>,
    head: Arc<Followed>,
    newest: Newest,
    /// The last turn taken, as long as it lasts.
    turn: Mutex<Weak<Held>>,
    /// Notices the appends of other processes.
    _follower: JoinSet<()>,
}

/// The transaction that holds the head's row. It ends when dropped.
struct Held(Mutex<Option<Transaction>>);

/// Creates the ledger's tables in a database, or migrates them. Needs the right to do so; the
/// program needs it for nothing else.
pub async fn migrate(url: &str) -> Result<(), Error> {
    crate::postgres::migrate(url, SCHEMA, &MIGRATIONS)
        .await
        .map_err(|error| Error::Unavailable(Arc::new(error)))
}

impl PostgresStore {
    /// Opens the ledger in a database, after migrating it if needed.
    pub async fn open(url: &str) -> Result<Self, Error> {
        let readers = Arc::new(Database::new(url, READERS)?);
        if !is_migrated(&readers, SCHEMA, &MIGRATIONS).await? {
            migrate(url).await?;
        }
        Self::open_with(readers, Database::new(url, WRITERS)?).await
    }

    /// Opens the ledger in a database for reading only. Creates and changes nothing: the database
    /// itself refuses changes. Needs only the rights to read the head, the events and the username
    /// claims.
    pub async fn open_to_read(url: &str) -> Result<Arc<dyn History>, Error> {
        Ok(Arc::new(Self::read_only(url).await?))
    }

    async fn read_only(url: &str) -> Result<Self, Error> {
        let readers = Arc::new(Database::read_only(url, READERS)?);
        Self::open_with(readers, Database::read_only(url, WRITERS)?).await
    }

    async fn open_with(readers: Arc<Database>, writers: Database) -> Result<Self, Error> {
        let (head, follower) = Followed::new(
            Arc::clone(&readers),
            "SELECT position FROM ledger.ledger_head",
        );
        let store = Self {
            writers,
            readers,
            head,
            newest: Newest::default(),
            turn: Mutex::default(),
            _follower: follower,
        };
        store.head().await?;
        Ok(store)
    }

    /// The transaction of the taken turn, if it was not used yet.
    fn turn(&self) -> Option<Transaction> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let held = turn.upgrade()?;
        let mut held = held.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.take()
    }
}

fn unsigned(row: &PgRow, column: impl ColumnIndex<PgRow> + Copy) -> Result<u64, Error> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|_| {
        let column = row.column(column).name();
        Error::Damaged(format!("column {column} holds {number}"))
    })
}

fn head(rows: &[PgRow]) -> Result<Head, Error> {
    let row = rows
        .first()
        .ok_or_else(|| Error::Damaged("the ledger does not have a head row".to_owned()))?;
    Ok(Head {
        store_id: row.try_get("store_id")?,
        epoch: unsigned(row, "epoch")?,
        position: unsigned(row, "position")?,
        recorded_at: Time::from_millis(row.try_get("recorded_at")?),
        appends: unsigned(row, "appends")?,
    })
}

fn event(row: &PgRow) -> Result<StoredEvent, Error> {
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
        schema_version: u32::try_from(row.try_get::<i32, _>(5)?)
            .map_err(|_| damaged("schema version"))?,
        recorded_at: Time::from_millis(row.try_get(6)?),
        envelope: envelope.into(),
        leaf_hash: LeafHash(leaf_hash.try_into().map_err(|_| damaged("leaf hash"))?),
    })
}

fn events(rows: &[PgRow]) -> Result<Vec<StoredEvent>, Error> {
    rows.iter().map(event).collect()
}

fn claim(row: &PgRow) -> Result<Claim, Error> {
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

fn texts<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[async_trait]
impl History for PostgresStore {
    async fn head(&self) -> Result<Head, Error> {
        let head = head(&self.readers.read(|| sqlx::query(select_head!(""))).await?)?;
        self.head.moved(head.position);
        Ok(head)
    }

    fn watch_head(&self) -> watch::Receiver<Position> {
        self.head.subscribe()
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        if let Some(events) = self.newest.read(after, limit) {
            return Ok(events);
        }
        let rows = self
            .readers
            .read(|| {
                sqlx::query(select_events!(
                    "WHERE position > $1 ORDER BY position LIMIT $2"
                ))
                .bind(signed(after))
                .bind(signed(limit as u64))
            })
            .await?;
        events(&rows)
    }

    async fn leaf_hashes(&self, after: Position, limit: usize) -> Result<Vec<[u8; 32]>, Error> {
        let rows = self
            .readers
            .read(|| {
                sqlx::query(
                    "SELECT leaf_hash FROM ledger.events WHERE position > $1 ORDER BY position LIMIT $2",
                )
                .bind(signed(after))
                .bind(signed(limit as u64))
            })
            .await?;
        let hash = |row: &PgRow| {
            let hash: &[u8] = row.try_get("leaf_hash")?;
            hash.try_into()
                .map_err(|_| Error::Damaged("a leaf hash has a wrong length".to_owned()))
        };
        rows.iter().map(hash).collect()
    }

    async fn users_between(&self, after: Position, until: Position) -> Result<Vec<UserId>, Error> {
        let count = usize::try_from(until - after).unwrap_or(usize::MAX);
        if let Some(events) = self.newest.read(after, count) {
            return Ok(events.iter().map(|event| event.user_id).collect());
        }
        let rows = self
            .readers
            .read(|| {
                sqlx::query(
                    "SELECT user_id FROM ledger.events WHERE position > $1 AND position <= $2",
                )
                .bind(signed(after))
                .bind(signed(until))
            })
            .await?;
        let user = |row: &PgRow| {
            let user = row.try_get::<&str, _>("user_id")?;
            user.parse()
                .map_err(|_| Error::Damaged("an event has a bad user id".to_owned()))
        };
        rows.iter().map(user).collect()
    }

    async fn read_user(
        &self,
        user: &UserId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        let rows = self
            .readers
            .read(|| {
                sqlx::query(select_events!(
                    "WHERE user_id = $1 AND version > $2 ORDER BY version LIMIT $3"
                ))
                .bind(user.to_string())
                .bind(signed(after))
                .bind(signed(limit as u64))
            })
            .await?;
        events(&rows)
    }

    async fn read_user_back(
        &self,
        user: &UserId,
        before: Version,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        let rows = self
            .readers
            .read(|| {
                sqlx::query(select_events!(
                    "WHERE user_id = $1 AND version < $2 ORDER BY version DESC LIMIT $3"
                ))
                .bind(user.to_string())
                .bind(signed(before))
                .bind(signed(limit as u64))
            })
            .await?;
        events(&rows)
    }

    async fn read_users(
        &self,
        users: &[UserId],
        after: Position,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        let rows = self
            .readers
            .read(|| {
                sqlx::query(READ_USERS)
                    .bind(texts(users))
                    .bind(signed(after))
                    .bind(signed(limit as u64))
            })
            .await?;
        events(&rows)
    }

    async fn claims(&self, usernames: &[String]) -> Result<Vec<Claim>, Error> {
        let rows = self
            .readers
            .read(|| sqlx::query(select_claims!("WHERE username = ANY($1)")).bind(usernames))
            .await?;
        rows.iter().map(claim).collect()
    }

    async fn claims_after(&self, username: &str, limit: usize) -> Result<Vec<Claim>, Error> {
        let rows = self
            .readers
            .read(|| {
                sqlx::query(select_claims!(
                    "WHERE username > $1 ORDER BY username LIMIT $2"
                ))
                .bind(username)
                .bind(signed(limit as u64))
            })
            .await?;
        rows.iter().map(claim).collect()
    }

    async fn outcomes(&self, keys: &[OutcomeKey]) -> Result<Vec<Outcome>, Error> {
        let (actors, keys): (Vec<_>, Vec<_>) = keys
            .iter()
            .map(|key| (key.actor.as_bytes(), key.key.as_bytes()))
            .unzip();
        let rows = self
            .readers
            .read(|| {
                sqlx::query(
                    "SELECT o.actor, o.key, o.fingerprint, o.answer, o.recorded_at \
                     FROM unnest($1::bytea[], $2::bytea[]) AS wanted(actor, key) \
                     JOIN ledger.idempotency AS o ON o.actor = wanted.actor AND o.key = wanted.key",
                )
                .bind(&actors)
                .bind(&keys)
            })
            .await?;
        let text = |row: &PgRow, column: &str| {
            String::from_utf8(row.try_get(column)?)
                .map_err(|_| Error::Damaged(format!("an outcome has a bad {column}")))
        };
        let outcome = |row: &PgRow| {
            Ok(Outcome {
                key: OutcomeKey {
                    actor: text(row, "actor")?,
                    key: text(row, "key")?,
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
        let rows = self
            .readers
            .read(|| {
                sqlx::query("SELECT position FROM ledger.events WHERE event_id = $1::uuid")
                    .bind(event.to_string())
            })
            .await?;
        let position = rows
            .first()
            .map(|row| unsigned(row, "position"))
            .transpose()?;
        // The answer to an append of it may have been lost.
        self.head.moved(position.unwrap_or(0));
        Ok(position)
    }

    async fn has_strays(&self) -> Result<bool, Error> {
        let rows = self
            .readers
            .read(|| {
                sqlx::query(
                    "SELECT EXISTS (SELECT FROM ledger.events WHERE position < 1) \
                     OR EXISTS (SELECT FROM ledger.username_claims WHERE username = '') \
                     OR EXISTS (SELECT FROM ledger.ledger_head WHERE only_row <> 1)",
                )
            })
            .await?;
        Ok(rows.first().map_or(Ok(false), |row| row.try_get(0))?)
    }
}

#[async_trait]
impl EventStore for PostgresStore {
    async fn append(&self, batch: &Batch) -> Result<(), AppendError> {
        let appended = self.append_once(batch).await;
        if appended.is_err() {
            self.newest.forget();
        }
        appended
    }

    async fn take_turn(&self) -> Result<Turn, Error> {
        let mut transaction = self.writers.begin().await?;
        // Waiters for a row get it in the order of their arrival.
        let locked = sqlx::query(select_head!(" FOR UPDATE"));
        let head = head(&self.writers.within(&mut transaction, locked).await?)?;
        self.head.moved(head.position);
        let held = Arc::new(Held(Mutex::new(Some(transaction))));
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&held);
        Ok(Turn {
            head,
            held: Some(held),
        })
    }

    async fn sweep(&self, now: Time, outcomes_before: Time) -> Result<(), Error> {
        // A few rows at a time, skipping rows that an append is writing. A sweep waits for nothing
        // and delays nobody for long.
        for (statement, before) in [
            (
                "WITH swept AS ( \
                     DELETE FROM ledger.idempotency WHERE (actor, key) IN ( \
                         SELECT actor, key FROM ledger.idempotency WHERE recorded_at < $1 \
                         LIMIT $2 FOR UPDATE SKIP LOCKED) \
                     RETURNING 1) \
                 SELECT count(*) FROM swept",
                outcomes_before,
            ),
            (
                "WITH swept AS ( \
                     DELETE FROM ledger.username_claims WHERE username IN ( \
                         SELECT username FROM ledger.username_claims WHERE held_until < $1 \
                         LIMIT $2 FOR UPDATE SKIP LOCKED) \
                     RETURNING 1) \
                 SELECT count(*) FROM swept",
                now,
            ),
        ] {
            loop {
                let statement = sqlx::query(statement)
                    .bind(before.millis())
                    .bind(i64::from(SWEPT));
                let rows = self.writers.write(statement).await?;
                let swept: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
                if swept < i64::from(SWEPT) {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl PostgresStore {
    async fn append_once(&self, batch: &Batch) -> Result<(), AppendError> {
        let rows = if let Some(mut transaction) = self.turn() {
            let written = self
                .writers
                .within(&mut transaction, append(batch))
                .await
                .map_err(refused)?;
            fail_point::pass(FailPoint::BeforeCommit);
            self.writers.commit(transaction).await.map_err(refused)?;
            written
        } else {
            fail_point::pass(FailPoint::BeforeCommit);
            self.writers.write(append(batch)).await.map_err(refused)?
        };
        fail_point::pass(FailPoint::AfterCommit);
        if rows.is_empty() {
            return Err(AppendError::HeadMoved);
        }
        self.newest.appended(&batch.events);
        self.head
            .moved(batch.expected.position + batch.events.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
