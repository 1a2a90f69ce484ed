//! What the SQLite files of the ledger, the trail and the log share.

use std::time::Duration;

use sqlx::sqlite::SqlitePoolOptions;

/// How long an operation waits for a connection, or for who writes.
pub(crate) const WAIT: Duration = Duration::from_secs(5);

/// Connections that stay: a file is not away, and does not come back.
pub(crate) fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(WAIT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// SQLite's integers are signed; positions, versions and counts are far from their limit.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
