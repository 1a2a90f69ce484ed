//! Shared parts of the SQLite files of the ledger, the audit trail, the Merkle log and the read
//! model.
//!
//! Statements say `LIMIT +?`. With a plain `LIMIT ?` SQLite prepares the statement again each time,
//! to plan for the value.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{
    ConnectOptions as _, Connection as _, QueryBuilder, Row as _, Sqlite, SqliteConnection,
};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;

/// How long an operation waits for a connection, or for the writer.
pub const WAIT: Duration = Duration::from_secs(5);

/// The number of rows that SQLite's thread reads ahead. Waking the other thread every few rows
/// takes longer than reading them; a whole page of rows would be in memory beside the events made
/// from it.
const ROWS: usize = 512;

/// A connection to a file.
pub fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(WAIT)
        .row_buffer_size(ROWS)
}

/// The number of pages in the write-ahead log that are worth moving to the database; SQLite's own
/// default.
const PAGES: i64 = 1_000;

/// The number of pages in the write-ahead log (32 MiB) at which a commit moves them itself. Only
/// then can the log restart at its beginning, which never happens by itself under load.
const MOST_PAGES: u32 = 8_192;

/// The length of a log with this many pages in bytes: a header of 32 bytes, and 24 bytes before each page.
const MOST_BYTES: u64 = MOST_PAGES as u64 * (4_096 + 24) + 32;

/// The shortest time between two checks of the log.
const LOOK: Duration = Duration::from_millis(20);

/// The time without a commit after which the last pages are moved too. While pages remain, every
/// reader must first look each page up in the log.
const QUIET: Duration = Duration::from_secs(1);

/// A pool that keeps its connections: a file does not become unavailable.
pub fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(WAIT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// The only writing connection to a file whose write-ahead log a [`Checkpointer`] maintains.
pub async fn writer(options: SqliteConnectOptions) -> Result<SqlitePool, sqlx::Error> {
    let options = options
        .pragma("wal_autocheckpoint", MOST_PAGES.to_string())
        // A log that restarts is cut to this length, so the length of the file is the length of the log.
        .pragma("journal_size_limit", MOST_BYTES.to_string())
        // A statement of many rows keeps each changed page until its end, to be able to undo itself. In a
        // temporary file that took longer than writing the rows.
        .pragma("temp_store", "memory");
    pool(1).connect_with(options).await
}

/// Moves committed pages from the write-ahead log to the database, on a connection beside the
/// writer. Otherwise every few commits, and their clients, would wait for this work.
///
/// Before SQLite 3.51.3 two connections doing this at once could damage the file
/// (<https://sqlite.org/wal.html>, "the WAL-reset bug"). A test checks the built-in version.
#[derive(Debug)]
pub struct Checkpointer {
    committed: Arc<Notify>,
    connection: Arc<Mutex<SqliteConnection>>,
    log: PathBuf,
    _task: JoinSet<()>,
}

impl Checkpointer {
    /// Starts maintaining a file, on a connection of its own.
    pub async fn start(options: &SqliteConnectOptions) -> Result<Self, sqlx::Error> {
        let connection = Arc::new(Mutex::new(options.connect().await?));
        let committed = Arc::new(Notify::new());
        let mut log = options.get_filename().as_os_str().to_owned();
        log.push("-wal");
        let mut task = JoinSet::new();
        task.spawn(move_pages(Arc::clone(&connection), Arc::clone(&committed)));
        Ok(Self {
            committed,
            connection,
            log: log.into(),
            _task: task,
        })
    }

    /// Reports a commit. The log becomes too long when pages are being moved each time a commit wants to move them.
    /// Then this call waits for that move and moves the rest, so that the next commit can restart the log.
    pub async fn committed(&self) {
        self.committed.notify_one();
        let length = std::fs::metadata(&self.log).map_or(0, |file| file.len());
        if length > MOST_BYTES {
            let mut connection = self.connection.lock().await;
            if let Err(error) = move_if(&mut connection, 1).await {
                tracing::debug!(%error, "The write-ahead log could not be moved");
            }
        }
    }
}

async fn move_pages(connection: Arc<Mutex<SqliteConnection>>, committed: Arc<Notify>) {
    // Whether all commits have been moved. Pages may remain from before.
    let mut is_done = false;
    loop {
        let enough = if is_done {
            committed.notified().await;
            PAGES
        } else {
            let next = tokio::time::timeout(QUIET, committed.notified()).await;
            next.map_or(1, |()| PAGES)
        };
        // Pages that are not moved now are moved later, at the latest by a commit. That commit reports any
        // fault of the file.
        match move_if(&mut *connection.lock().await, enough).await {
            Ok(left) => is_done = left == 0,
            Err(error) => {
                tracing::debug!(%error, "The write-ahead log could not be moved");
                is_done = enough == 1;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Moves the pages if there are enough of them. Returns the number of remaining pages. Waits for
/// neither writers nor readers.
async fn move_if(connection: &mut SqliteConnection, enough: i64) -> Result<i64, sqlx::Error> {
    let mut left = look(connection, "PRAGMA wal_checkpoint(NOOP)").await?;
    if left >= enough {
        left = look(connection, "PRAGMA wal_checkpoint(PASSIVE)").await?;
    }
    Ok(left)
}

/// The number of pages that remain in the log.
async fn look(
    connection: &mut SqliteConnection,
    statement: &'static str,
) -> Result<i64, sqlx::Error> {
    let row = sqlx::query(statement).fetch_one(connection).await?;
    Ok(row.try_get::<i64, _>(1)? - row.try_get::<i64, _>(2)?)
}

/// A number as a signed integer of SQLite; positions, versions and counts are far below the limit.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A transaction of scripts. A script sends several statements to SQLite's thread in one message,
/// because waking threads takes longer than most statements. The first script begins with `BEGIN
/// IMMEDIATE`; the last ends with `COMMIT`.
///
/// Unless it was committed, its connection is closed, which rolls back. After a disk error SQLite
/// rolls back by itself. The driver does not know this and would refuse every later transaction on
/// that connection.
pub struct Transaction(Option<PoolConnection<Sqlite>>);

impl Transaction {
    /// Takes a connection from a pool; no transaction is open yet.
    pub async fn of(pool: &SqlitePool) -> Result<Self, sqlx::Error> {
        Ok(Self(Some(pool.acquire().await?)))
    }

    /// Runs a script up to its first error.
    pub async fn run(&mut self, script: &mut QueryBuilder<Sqlite>) -> Result<(), sqlx::Error> {
        script.build().execute(self.connection()).await?;
        Ok(())
    }

    /// The connection, for statements between scripts.
    pub fn connection(&mut self) -> &mut SqliteConnection {
        self.0.as_mut().expect("not ended yet")
    }

    /// Ends the transaction after the last script has committed, or before any has begun.
    pub fn committed(mut self) {
        drop(self.0.take());
    }

    /// Rolls back and waits for the result.
    pub async fn roll_back(mut self) {
        if let Some(connection) = self.0.take()
            && let Err(error) = connection.detach().close().await
        {
            tracing::debug!(%error, "A connection that had failed could not be closed");
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        drop(self.0.take().map(PoolConnection::detach));
    }
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};

    use super::*;

    /// The number of pages of the log, and how many of them have been moved.
    async fn log(connection: &mut SqliteConnection) -> (i64, i64) {
        let row = sqlx::query("PRAGMA wal_checkpoint(NOOP)")
            .fetch_one(connection)
            .await
            .unwrap();
        (row.get(1), row.get(2))
    }

    #[tokio::test]
    async fn the_built_in_sqlite_allows_two_connections_to_move_pages() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let version: String = sqlx::query_scalar("SELECT sqlite_version()")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        let numbers: Vec<u32> = version
            .split('.')
            .map(|number| number.parse().unwrap())
            .collect();
        assert!(numbers >= vec![3, 51, 3], "{version}");
    }

    #[tokio::test]
    async fn pages_are_moved_beside_the_writer_and_the_log_stays_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        let options = options(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Off);
        let writer = writer(options.clone()).await.unwrap();
        sqlx::query("CREATE TABLE pages (page BLOB)")
            .execute(&writer)
            .await
            .unwrap();
        let checkpointer = Checkpointer::start(&options).await.unwrap();
        let mut beside = options.connect().await.unwrap();
        let write = async |count: i64| {
            sqlx::query(
                "INSERT INTO pages SELECT zeroblob(4000) FROM (WITH RECURSIVE n(i) AS \
                 (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT i FROM n)",
            )
            .bind(count)
            .execute(&writer)
            .await
            .unwrap();
            checkpointer.committed().await;
        };

        write(PAGES + 1).await;
        let moved = tokio::time::timeout(WAIT, async {
            while log(&mut beside).await.1 < PAGES {
                tokio::time::sleep(LOOK).await;
            }
        });
        moved.await.expect("the pages are moved");
        assert!(log(&mut beside).await.0 < i64::from(MOST_PAGES));

        write(1).await;
        let moved = tokio::time::timeout(WAIT, async {
            while let (there, moved) = log(&mut beside).await
                && there != moved
            {
                tokio::time::sleep(LOOK).await;
            }
        });
        moved.await.expect("the last pages are moved, too");

        // Commits without a pause, and pages that are being moved whenever a commit wants to move them.
        let most = i64::from(MOST_PAGES);
        for _ in 0..5 * most / 500 {
            write(500).await;
            let there = log(&mut beside).await.0;
            assert!(there < 2 * most, "{there} pages");
        }
    }
}
