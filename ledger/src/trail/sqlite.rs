//! The audit trail in one SQLite file, beside the ledger and under its lock.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteJournalMode, SqlitePool, SqliteRow, SqliteSynchronous};
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::{AuditTrail, Error, Question, Read, RecordedRead, Start};
use crate::migrations::migrator;
use crate::sqlite::{options, pool, signed};
use events::Time;

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    migrator(&[(
        "0001_audit.sql",
        include_str!("../../../migrations/sqlite/audit/0001_audit.sql"),
    )])
});

/// The columns of a recorded read, after its number.
macro_rules! read_columns {
    () => {
        "read_at, actor, route, user_id, query, request_id"
    };
}

/// Connections that list.
const READERS: u32 = 2;

/// The audit trail in one SQLite file.
#[derive(Debug)]
pub struct SqliteTrail {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteTrail {
    /// Opens the trail in a file, and creates the file if it is missing. Open the ledger of the
    /// folder first: its lock excludes other processes.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let options = options(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A read reaches the disk before it is answered.
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
}

fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, Error> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|_| Error::Damaged(format!("column {column} holds {number}")))
}

fn recorded(row: &SqliteRow) -> Result<RecordedRead, Error> {
    let number = unsigned(row, "number")?;
    let user = row
        .try_get::<Option<&str>, _>("user_id")?
        .map(str::parse)
        .transpose()
        .map_err(|_| Error::Damaged(format!("read {number} has a bad user id")))?;
    Ok(RecordedRead {
        number,
        read: Read {
            at: Time::from_millis(row.try_get("read_at")?),
            actor: row.try_get("actor")?,
            route: row.try_get("route")?,
            user,
            query: row.try_get("query")?,
            request_id: row.try_get("request_id")?,
        },
    })
}

#[async_trait]
impl AuditTrail for SqliteTrail {
    async fn record(&self, read: &Read) -> Result<u64, Error> {
        // Only one connection writes, so the number cannot be taken in between.
        let row = sqlx::query(concat!(
            "INSERT INTO reads (number, ",
            read_columns!(),
            ") SELECT coalesce(max(number), 0) + 1, ?, ?, ?, ?, ?, ? FROM reads RETURNING number"
        ))
        .bind(read.at.millis())
        .bind(&read.actor)
        .bind(&read.route)
        .bind(read.user.map(|user| user.to_string()))
        .bind(&read.query)
        .bind(&read.request_id)
        .fetch_one(&self.writer)
        .await?;
        unsigned(&row, "number")
    }

    async fn count(&self) -> Result<u64, Error> {
        let row = sqlx::query("SELECT coalesce(max(number), 0) AS number FROM reads")
            .fetch_one(&self.readers)
            .await?;
        unsigned(&row, "number")
    }

    async fn list(&self, question: &Question) -> Result<Vec<RecordedRead>, Error> {
        let mut query = QueryBuilder::<Sqlite>::new(concat!(
            "SELECT number, ",
            read_columns!(),
            " FROM reads WHERE number "
        ));
        let order = match question.start {
            Start::After(number) => {
                query.push("> ").push_bind(signed(number));
                "ASC"
            }
            Start::Before(number) => {
                query.push("< ").push_bind(signed(number));
                "DESC"
            }
        };
        if let Some(actor) = &question.actor {
            query.push(" AND actor = ").push_bind(actor);
        }
        if let Some(user) = &question.user {
            query.push(" AND user_id = ").push_bind(user.to_string());
        }
        query.push(" ORDER BY number ").push(order);
        query
            .push(" LIMIT +")
            .push_bind(signed(question.limit as u64));
        let rows = query.build().fetch_all(&self.readers).await?;
        rows.iter().map(recorded).collect()
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection as _, SqliteConnection};

    use super::super::conformance::{self, read};
    use super::*;

    async fn open(folder: &Path) -> SqliteTrail {
        SqliteTrail::open(&folder.join("audit.db")).await.unwrap()
    }

    #[tokio::test]
    async fn the_sqlite_trail_passes_the_conformance_suite() {
        let folder = tempfile::tempdir().unwrap();
        let opened = std::cell::Cell::new(0);
        conformance::run_all(async || {
            opened.set(opened.get() + 1);
            let folder = folder.path().join(opened.get().to_string());
            std::fs::create_dir(&folder).unwrap();
            let trail: Arc<dyn AuditTrail> = Arc::new(open(&folder).await);
            trail
        })
        .await;
    }

    #[tokio::test]
    async fn the_database_refuses_to_change_or_delete_reads() {
        let folder = tempfile::tempdir().unwrap();
        let trail = open(folder.path()).await;
        for n in 1..=2 {
            trail.record(&read(n, "auditor")).await.unwrap();
        }
        let url = format!("sqlite://{}", folder.path().join("audit.db").display());
        let mut stranger = SqliteConnection::connect(&url).await.unwrap();
        for statement in [
            "UPDATE reads SET actor = 'another'",
            "UPDATE OR REPLACE reads SET number = 2",
            "DELETE FROM reads",
            "INSERT OR REPLACE INTO reads SELECT * FROM reads",
            "INSERT INTO reads SELECT 4, read_at, actor, route, user_id, query, request_id FROM reads WHERE number = 1",
        ] {
            let refused = sqlx::query(statement).execute(&mut stranger).await;
            assert!(refused.is_err(), "{statement}");
        }
        assert_eq!(trail.count().await.unwrap(), 2);
    }

    #[tokio::test]
    async fn recorded_reads_are_on_disk_and_present_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let trail = open(folder.path()).await;
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
            .fetch_one(&trail.writer)
            .await
            .unwrap();
        assert_eq!(synchronous, 2, "2 is FULL");
        trail.record(&read(1, "auditor")).await.unwrap();
        drop(trail);
        assert_eq!(open(folder.path()).await.count().await.unwrap(), 1);
    }
}
