//! The Merkle log in a PostgreSQL database, which many processes may share.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgRow;

use super::tree::Hash;
use super::{LogStore, SignedCheckpoint, missing, no_head};
use crate::migrations::migrator;
use crate::postgres::{Database, is_migrated, signed};
use crate::store::Error;

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    migrator(&[(
        "0001_log.sql",
        include_str!("../../../migrations/postgres/log/0001_log.sql"),
    )])
});
const SCHEMA: &str = "log";

/// Connections that read and write.
const CONNECTIONS: u32 = 2;

/// The Merkle log in a PostgreSQL database.
pub struct PostgresLog {
    database: Database,
}

/// Creates the log's tables in a database, or migrates them. Needs the right to do so; the program
/// needs it for nothing else.
pub async fn migrate(url: &str) -> Result<(), Error> {
    crate::postgres::migrate(url, SCHEMA, &MIGRATIONS)
        .await
        .map_err(|error| Error::Unavailable(Arc::new(error)))
}

impl PostgresLog {
    /// Opens the log in a database, after migrating it if needed.
    pub async fn open(url: &str) -> Result<Self, Error> {
        let database = Database::new(url, CONNECTIONS)?;
        if !is_migrated(&database, SCHEMA, &MIGRATIONS).await? {
            migrate(url).await?;
        }
        Ok(Self { database })
    }

    /// Opens the log in a database for reading only. The database itself refuses changes.
    pub fn open_to_read(url: &str) -> Result<Self, Error> {
        let database = Database::read_only(url, CONNECTIONS)?;
        Ok(Self { database })
    }
}

fn number(row: &PgRow, column: &str) -> Result<u64, Error> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|_| Error::Damaged(format!("column {column} holds {number}")))
}

fn hash(row: &PgRow) -> Result<Hash, Error> {
    let hash: &[u8] = row.try_get("hash")?;
    hash.try_into()
        .map_err(|_| Error::Damaged("a hash of the tree has a wrong length".to_owned()))
}

/// Returns no row when a checkpoint of this number was already counted: by another process, or by
/// an attempt whose answer was lost.
const ADD_CHECKPOINT: &str = "\
WITH moved AS (UPDATE log.head SET number = $1 WHERE number + 1 = $1 RETURNING number), kept AS (
    INSERT INTO log.checkpoints (number, size, note) SELECT number, $2, $3 FROM moved
)
SELECT number FROM moved";

fn checkpoint(row: &PgRow) -> Result<SignedCheckpoint, Error> {
    Ok(SignedCheckpoint {
        number: number(row, "number")?,
        size: number(row, "size")?,
        note: row.try_get("note")?,
    })
}

#[async_trait]
impl LogStore for PostgresLog {
    async fn hashes(&self, level: u32, skip: u64, limit: usize) -> Result<Vec<Hash>, Error> {
        let rows = self
            .database
            .read(|| {
                sqlx::query(
                    "SELECT hash FROM log.hashes WHERE level = $1 AND hash_index >= $2 ORDER BY hash_index LIMIT $3",
                )
                .bind(i32::try_from(level).unwrap_or(i32::MAX))
                .bind(signed(skip))
                .bind(signed(limit as u64))
            })
            .await?;
        rows.iter().map(hash).collect()
    }

    async fn count(&self, level: u32) -> Result<u64, Error> {
        let rows = self
            .database
            .read(|| {
                sqlx::query(
                    "SELECT coalesce(max(hash_index), -1) + 1 AS count FROM log.hashes WHERE level = $1",
                )
                .bind(i32::try_from(level).unwrap_or(i32::MAX))
            })
            .await?;
        rows.first().map_or(Ok(0), |row| number(row, "count"))
    }

    async fn add_hashes(&self, level: u32, first: u64, hashes: &[Hash]) -> Result<(), Error> {
        let hashes: Vec<&[u8]> = hashes.iter().map(<[u8; 32]>::as_slice).collect();
        let statement = sqlx::query(
            "INSERT INTO log.hashes (level, hash_index, hash) \
             SELECT $1, $2 + h.number - 1, h.hash FROM unnest($3::bytea[]) WITH ORDINALITY AS h(hash, number) \
             ON CONFLICT DO NOTHING",
        )
        .bind(i32::try_from(level).unwrap_or(i32::MAX))
        .bind(signed(first))
        .bind(hashes);
        self.database.write(statement).await?;
        Ok(())
    }

    async fn checkpoint(&self) -> Result<Option<SignedCheckpoint>, Error> {
        let rows = self
            .database
            .read(|| {
                sqlx::query(
                    "SELECT h.number, c.size, c.note FROM log.head AS h \
                     LEFT JOIN log.checkpoints AS c ON c.number = h.number",
                )
            })
            .await?;
        let row = rows.first().ok_or_else(no_head)?;
        match (number(row, "number")?, row.try_get("size")?) {
            (0, None) => Ok(None),
            (number, None::<i64>) => Err(missing(number)),
            _ => checkpoint(row).map(Some),
        }
    }

    async fn checkpoints(&self, after: u64, limit: usize) -> Result<Vec<SignedCheckpoint>, Error> {
        let rows = self
            .database
            .read(|| {
                sqlx::query(
                    "SELECT number, size, note FROM log.checkpoints WHERE number > $1 ORDER BY number LIMIT $2",
                )
                .bind(signed(after))
                .bind(signed(limit as u64))
            })
            .await?;
        rows.iter().map(checkpoint).collect()
    }

    async fn add_checkpoint(&self, checkpoint: &SignedCheckpoint) -> Result<bool, Error> {
        let statement = sqlx::query(ADD_CHECKPOINT)
            .bind(signed(checkpoint.number))
            .bind(signed(checkpoint.size))
            .bind(&checkpoint.note);
        Ok(!self.database.write(statement).await?.is_empty())
    }

    async fn adopt_key(&self, key: &str) -> Result<String, Error> {
        if let Some(adopted) = self.key().await? {
            return Ok(adopted);
        }
        let statement = sqlx::query(
            "INSERT INTO log.log_key (only_row, public_key) VALUES (1, $1) ON CONFLICT DO NOTHING",
        )
        .bind(key);
        self.database.write(statement).await?;
        let adopted = self.key().await?;
        adopted.ok_or_else(|| Error::Damaged("the key of the log was not stored".to_owned()))
    }

    async fn key(&self) -> Result<Option<String>, Error> {
        let rows = self
            .database
            .read(|| sqlx::query("SELECT public_key FROM log.log_key"))
            .await?;
        Ok(rows
            .first()
            .map(|row| row.try_get("public_key"))
            .transpose()?)
    }

    async fn has_strays(&self) -> Result<bool, Error> {
        let rows = self
            .database
            .read(|| {
                sqlx::query(
                    "SELECT EXISTS (SELECT FROM log.hashes WHERE level < 1 OR level > 8 OR hash_index < 0) \
                     OR EXISTS (SELECT FROM log.checkpoints WHERE number < 1) \
                     OR EXISTS (SELECT FROM log.head WHERE only_row <> 1) \
                     OR EXISTS (SELECT FROM log.log_key WHERE only_row <> 1)",
                )
            })
            .await?;
        Ok(rows.first().map_or(Ok(false), |row| row.try_get(0))?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::*;
    use crate::test_servers::postgres::Postgres as Server;
    use crate::test_servers::rights::{granted, refused, refused_to_owner};

    #[tokio::test]
    async fn the_postgres_log_passes_the_conformance_suite() {
        for parameters in ["", "?statement-cache-capacity=0"] {
            conformance::run_all(async || {
                let url = Server::shared().database().await;
                let log = PostgresLog::open(&format!("{url}{parameters}")).await;
                let log: Arc<dyn LogStore> = Arc::new(log.unwrap());
                log
            })
            .await;
        }
    }

    #[tokio::test]
    async fn stored_values_cannot_change_and_the_program_needs_no_right_to_change_them() {
        let url = Server::shared().database().await;
        let log = PostgresLog::open(&url).await.unwrap();
        conformance::fill(&log).await;
        let grants = include_str!("../../../migrations/postgres/grants/log.sql");
        let url_of_program = granted(&url, "log_keeper", grants).await;
        let program = PostgresLog::open(&url_of_program).await.unwrap();
        program.add_hashes(1, 3, &[[9; 32]]).await.unwrap();
        let reading = PostgresLog::open_to_read(&url_of_program).unwrap();
        assert_eq!(reading.count(1).await.unwrap(), 4);
        assert!(reading.add_hashes(1, 4, &[[9; 32]]).await.is_err());
        let changes = [
            "DELETE FROM log.hashes",
            "TRUNCATE log.hashes",
            "UPDATE log.hashes SET hash = DEFAULT",
            "DELETE FROM log.checkpoints",
            "TRUNCATE log.checkpoints",
            "UPDATE log.checkpoints SET note = DEFAULT",
            "DELETE FROM log.log_key",
            "TRUNCATE log.log_key",
            "UPDATE log.log_key SET public_key = DEFAULT",
            "DELETE FROM log.head",
            "TRUNCATE log.head",
        ];
        refused(&url_of_program, "42501", &changes).await;
        refused_to_owner(&url, &changes).await;
        // The program moves the head and adds checkpoints, but only in order.
        let disorder = [
            "UPDATE log.head SET number = number - 1",
            "INSERT INTO log.checkpoints VALUES (3, 9, '')",
            "INSERT INTO log.checkpoints VALUES (2, 5, '')",
        ];
        refused(&url_of_program, "P0001", &disorder).await;
        refused_to_owner(&url, &disorder).await;
    }
}
