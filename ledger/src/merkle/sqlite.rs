//! The Merkle log in one SQLite file, beside the ledger and under its lock.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteJournalMode, SqlitePool, SqliteRow, SqliteSynchronous};
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::tree::Hash;
use super::{LogStore, SignedCheckpoint, missing, no_head};
use crate::migrations::migrator;
use crate::sqlite::{options, pool, signed};
use crate::store::Error;

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    migrator(&[(
        "0001_log.sql",
        include_str!("../../../migrations/sqlite/log/0001_log.sql"),
    )])
});

/// Connections that read.
const READERS: u32 = 2;

/// The Merkle log in one SQLite file.
#[derive(Debug)]
pub struct SqliteLog {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteLog {
    /// Opens the log in a file, and creates the file if it is missing. Open the ledger of the
    /// folder first: its lock excludes other processes.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let options = options(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // Hashes can be computed again, but signatures must not be lost.
            .synchronous(SqliteSynchronous::Full)
            .pragma("recursive_triggers", "ON");
        let writer = pool(1).connect_with(options.clone()).await?;
        MIGRATIONS
            .run(&writer)
            .await
            .map_err(|error| Error::Unavailable(Arc::new(error)))?;
        let readers = pool(READERS)
            .connect_with(options.create_if_missing(false).read_only(true))
            .await?;
        Ok(Self { writer, readers })
    }

    /// Opens the log in a file for reading only, beside the process that has it open, or without
    /// one. SQLite itself refuses changes.
    pub async fn open_to_read(path: &Path) -> Result<Self, Error> {
        let options = options(path).read_only(true);
        let readers = pool(READERS).connect_with(options).await?;
        Ok(Self {
            writer: readers.clone(),
            readers,
        })
    }
}

fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, Error> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|_| Error::Damaged(format!("column {column} holds {number}")))
}

fn hash(row: &SqliteRow) -> Result<Hash, Error> {
    let hash: &[u8] = row.try_get("hash")?;
    hash.try_into()
        .map_err(|_| Error::Damaged("a hash of the tree has a wrong length".to_owned()))
}

fn checkpoint(row: &SqliteRow) -> Result<SignedCheckpoint, Error> {
    // SQLite also stores bytes that are not UTF-8 as text. Such a note does not verify with any
    // key.
    let note: Vec<u8> = row.try_get("note")?;
    Ok(SignedCheckpoint {
        number: unsigned(row, "number")?,
        size: unsigned(row, "size")?,
        note: String::from_utf8_lossy(&note).into_owned(),
    })
}

#[async_trait]
impl LogStore for SqliteLog {
    async fn hashes(&self, level: u32, skip: u64, limit: usize) -> Result<Vec<Hash>, Error> {
        let rows = sqlx::query(
            "SELECT hash FROM hashes WHERE level = ? AND hash_index >= ? ORDER BY hash_index LIMIT +?",
        )
        .bind(level)
        .bind(signed(skip))
        .bind(signed(limit as u64))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(hash).collect()
    }

    async fn count(&self, level: u32) -> Result<u64, Error> {
        let row = sqlx::query(
            "SELECT coalesce(max(hash_index), -1) + 1 AS count FROM hashes WHERE level = ?",
        )
        .bind(level)
        .fetch_one(&self.readers)
        .await?;
        unsigned(&row, "count")
    }

    async fn add_hashes(&self, level: u32, first: u64, hashes: &[Hash]) -> Result<(), Error> {
        let kept = self.count(level).await?;
        let new = usize::try_from(kept.saturating_sub(first)).unwrap_or(usize::MAX);
        let new = hashes.get(new..).unwrap_or_default();
        if new.is_empty() {
            return Ok(());
        }
        let mut insert =
            QueryBuilder::<Sqlite>::new("INSERT INTO hashes (level, hash_index, hash) ");
        insert.push_values(
            new.iter().zip(kept.max(first)..),
            |mut row, (hash, hash_index)| {
                row.push_bind(level)
                    .push_bind(signed(hash_index))
                    .push_bind(hash.as_slice());
            },
        );
        insert.build().execute(&self.writer).await?;
        Ok(())
    }

    async fn checkpoint(&self) -> Result<Option<SignedCheckpoint>, Error> {
        let row = sqlx::query(
            "SELECT h.number, c.size, c.note FROM head AS h \
             LEFT JOIN checkpoints AS c ON c.number = h.number",
        )
        .fetch_optional(&self.readers)
        .await?
        .ok_or_else(no_head)?;
        match (unsigned(&row, "number")?, row.try_get("size")?) {
            (0, None) => Ok(None),
            (number, None::<i64>) => Err(missing(number)),
            _ => checkpoint(&row).map(Some),
        }
    }

    async fn checkpoints(&self, after: u64, limit: usize) -> Result<Vec<SignedCheckpoint>, Error> {
        let rows = sqlx::query(
            "SELECT number, size, note FROM checkpoints WHERE number > ? ORDER BY number LIMIT +?",
        )
        .bind(signed(after))
        .bind(signed(limit as u64))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(checkpoint).collect()
    }

    async fn add_checkpoint(&self, checkpoint: &SignedCheckpoint) -> Result<bool, Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let number = signed(checkpoint.number);
        let moved = sqlx::query("UPDATE head SET number = ?1 WHERE number + 1 = ?1")
            .bind(number)
            .execute(&mut *transaction)
            .await?;
        if moved.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("INSERT INTO checkpoints (number, size, note) VALUES (?, ?, ?)")
            .bind(number)
            .bind(signed(checkpoint.size))
            .bind(&checkpoint.note)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn adopt_key(&self, key: &str) -> Result<String, Error> {
        sqlx::query(
            "INSERT INTO log_key (only_row, public_key) SELECT 1, ? \
             WHERE NOT EXISTS (SELECT 1 FROM log_key)",
        )
        .bind(key)
        .execute(&self.writer)
        .await?;
        let adopted = self.key().await?;
        adopted.ok_or_else(|| Error::Damaged("the key of the log was not stored".to_owned()))
    }

    async fn key(&self) -> Result<Option<String>, Error> {
        let row = sqlx::query("SELECT public_key FROM log_key")
            .fetch_optional(&self.readers)
            .await?;
        let key: Option<Vec<u8>> = row.map(|row| row.try_get("public_key")).transpose()?;
        Ok(key.map(|key| String::from_utf8_lossy(&key).into_owned()))
    }

    async fn has_strays(&self) -> Result<bool, Error> {
        let row = sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM hashes WHERE level < 1 OR level > 8 OR hash_index < 0) \
             OR EXISTS (SELECT 1 FROM checkpoints WHERE number < 1) \
             OR EXISTS (SELECT 1 FROM head WHERE only_row <> 1) \
             OR EXISTS (SELECT 1 FROM log_key WHERE only_row <> 1)",
        )
        .fetch_one(&self.readers)
        .await?;
        Ok(row.try_get(0)?)
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection as _, SqliteConnection};

    use super::super::conformance;
    use super::*;

    async fn open(folder: &Path) -> SqliteLog {
        SqliteLog::open(&folder.join("log.db")).await.unwrap()
    }

    #[tokio::test]
    async fn the_sqlite_log_passes_the_conformance_suite() {
        let folder = tempfile::tempdir().unwrap();
        let opened = std::cell::Cell::new(0);
        conformance::run_all(async || {
            opened.set(opened.get() + 1);
            let folder = folder.path().join(opened.get().to_string());
            std::fs::create_dir(&folder).unwrap();
            let log: Arc<dyn LogStore> = Arc::new(open(&folder).await);
            log
        })
        .await;
    }

    #[tokio::test]
    async fn a_read_only_log_shows_what_another_process_stores_and_refuses_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        assert!(SqliteLog::open_to_read(&path).await.is_err());
        assert!(!path.exists(), "nothing is created");
        let log = open(folder.path()).await;
        let reading = SqliteLog::open_to_read(&path).await.unwrap();
        conformance::fill(&log).await;
        assert_eq!(reading.count(1).await.unwrap(), 3);
        assert!(reading.add_hashes(1, 3, &[[0; 32]]).await.is_err());
        assert!(reading.adopt_key("another").await.is_err());
    }

    #[tokio::test]
    async fn stored_values_cannot_be_changed_or_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path()).await;
        conformance::fill(&log).await;
        let url = format!("sqlite://{}", folder.path().join("log.db").display());
        let mut stranger = SqliteConnection::connect(&url).await.unwrap();
        for statement in [
            "UPDATE hashes SET hash = zeroblob(32)",
            "DELETE FROM hashes",
            "INSERT OR REPLACE INTO hashes SELECT level, hash_index, zeroblob(32) FROM hashes",
            "UPDATE checkpoints SET note = ''",
            "DELETE FROM checkpoints",
            "INSERT OR REPLACE INTO checkpoints SELECT number, size, '' FROM checkpoints",
            "UPDATE head SET number = number - 1",
            "DELETE FROM head",
            "INSERT OR REPLACE INTO head VALUES (1, 0)",
            "UPDATE log_key SET public_key = ''",
            "DELETE FROM log_key",
            "INSERT OR REPLACE INTO log_key VALUES (1, '')",
        ] {
            let refused = sqlx::query(statement).execute(&mut stranger).await;
            assert!(refused.is_err(), "{statement}");
        }
    }
}
