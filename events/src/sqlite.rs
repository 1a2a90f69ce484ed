//! What the SQLite files of the ledger, the trail, the log and the read model share.
//!
//! Statements say `LIMIT +?`: where the limit is a mere parameter SQLite prepares the statement anew each time, to plan
//! for its value.

use std::path::Path;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{Connection as _, QueryBuilder, Sqlite, SqliteConnection};

/// How long an operation waits for a connection, or for who writes.
pub const WAIT: Duration = Duration::from_secs(5);

/// Rows that SQLite's thread reads before somebody takes one: waking each other for every few takes longer than reading
/// them, and a whole page of rows would be in memory beside the events that are made of it.
const ROWS: usize = 512;

/// A connection to a file.
pub fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(WAIT)
        .row_buffer_size(ROWS)
}

/// Connections that stay: a file is not away, and does not come back.
pub fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(WAIT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// SQLite's integers are signed; positions, versions and counts are far from their limit.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A transaction of scripts: several statements that go to SQLite's thread in one message and not in one each, as
/// waking threads takes longer than most statements do. The first script begins with `BEGIN IMMEDIATE`, and
/// the last ends with `COMMIT`.
///
/// Unless it was committed its connection is closed, which rolls back. After an error of the disk SQLite has rolled
/// back by itself, which the driver does not know: it would refuse every transaction on that connection.
pub struct Transaction(Option<PoolConnection<Sqlite>>);

impl Transaction {
    /// Takes a connection of a pool; nothing is begun yet.
    pub async fn of(pool: &SqlitePool) -> Result<Self, sqlx::Error> {
        Ok(Self(Some(pool.acquire().await?)))
    }

    /// Runs a script, up to its first error.
    pub async fn run(&mut self, script: &mut QueryBuilder<Sqlite>) -> Result<(), sqlx::Error> {
        script.build().execute(self.connection()).await?;
        Ok(())
    }

    /// For statements between scripts.
    pub fn connection(&mut self) -> &mut SqliteConnection {
        self.0.as_mut().expect("not ended yet")
    }

    /// The last script has committed, or nothing was begun.
    pub fn committed(mut self) {
        drop(self.0.take());
    }

    /// Rolls back, and waits for it.
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
