//! Tables beside the live ones in the same file: `next_…` while they are built, and `old_…` after
//! they were live.
//!
//! The swap renames tables. SQLite prepares the statements of all connections of all processes
//! again when names have changed. Readers never wait.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::time::Duration;

use async_trait::async_trait;
use events::{Document, Position, UserId};
use ledger::sqlite::options;
use sqlx::sqlite::{SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, QueryBuilder, Row as _, SqliteConnection};
use tokio::time::Instant;

use super::{
    SqliteReadModel, Usernames, document, parked, push_documents, signed, unavailable, unsigned,
    write, write_words,
};
use crate::read_model::{Batch, Parked};
use crate::rebuild::{Beside, Error, Replaceable, Row, Tables, Which};

const TABLES: [&str; 3] = ["users", "user_words", "parked_users"];
/// Documents per transaction. A projector on the same file waits for each transaction, so they are
/// short.
const ROWS: usize = 1_000;
/// Rows of one INSERT.
const INSERT: usize = 64;
/// How long to wait for a projector that writes to the same file.
const WAIT: Duration = Duration::from_secs(30);

/// Tables beside the live ones.
struct SqliteBeside {
    connection: SqliteConnection,
    /// Reads the live tables, in one transaction.
    look: SqliteConnection,
    /// Excludes other rebuilds; the operating system releases it when the process dies.
    _guard: File,
    /// The name prefix of these tables.
    tables: &'static str,
    /// The row of these tables in the table of checkpoints.
    row: &'static str,
    run: String,
    position: Position,
    /// The position before the swap in progress.
    locked_at: Option<Position>,
}

#[async_trait]
impl Replaceable for SqliteReadModel {
    async fn fresh(&self, run: &str) -> Result<Box<dyn Beside>, Error> {
        let mut beside = SqliteBeside::open(self, "next_", "next", run).await?;
        beside.make().await?;
        Ok(Box::new(beside))
    }

    async fn kept(&self, run: &str) -> Result<Box<dyn Beside>, Error> {
        let mut beside = SqliteBeside::open(self, "old_", "old", run).await?;
        let claimed =
            sqlx::query("UPDATE projections SET owner = ? WHERE name = 'old' RETURNING position")
                .bind(run)
                .fetch_optional(&mut beside.connection)
                .await?
                .ok_or(Error::NothingKept)?;
        beside.position = unsigned(&claimed, "position")?;
        for table in TABLES {
            let live = beside.columns(table).await?;
            if live != beside.columns(&format!("old_{table}")).await? {
                return Err(Error::KeptAreOutdated);
            }
        }
        Ok(Box::new(beside))
    }
}

impl SqliteBeside {
    async fn open(
        read_model: &SqliteReadModel,
        tables: &'static str,
        row: &'static str,
        run: &str,
    ) -> Result<Self, Error> {
        let mut lock = read_model.path.as_os_str().to_owned();
        lock.push(".rebuild.lock");
        let guard = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(lock)
            .map_err(unavailable)?;
        match guard.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy),
            Err(TryLockError::Error(error)) => return Err(unavailable(error).into()),
        }
        let options = options(&read_model.path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(WAIT)
            .pragma("cache_size", "-131072");
        let look = options.clone().read_only(true);
        Ok(Self {
            connection: options.connect().await?,
            look: look.connect().await?,
            _guard: guard,
            tables,
            row,
            run: run.to_owned(),
            position: 0,
            locked_at: None,
        })
    }

    async fn execute(&mut self, statement: String) -> Result<(), Error> {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// Creates empty tables and indexes like the live ones. Index names are unique in a file, so
    /// these get a suffix after `__`.
    async fn make(&mut self) -> Result<(), Error> {
        self.begin().await?;
        for table in TABLES {
            self.execute(format!("DROP TABLE IF EXISTS next_{table}"))
                .await?;
            let made = sqlx::query("SELECT type, name, sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL ORDER BY type DESC")
                .bind(table)
                .fetch_all(&mut self.connection)
                .await?;
            for row in &made {
                let (kind, name, statement): (&str, &str, &str) = (
                    row.try_get("type")?,
                    row.try_get("name")?,
                    row.try_get("sql")?,
                );
                let (_, columns) = statement.split_once('(').unwrap_or_default();
                let statement = if kind == "table" {
                    format!("CREATE TABLE next_{table} ({columns}")
                } else {
                    let name = name.split("__").next().unwrap_or(name);
                    let run = &self.run;
                    format!("CREATE INDEX {name}__{run} ON next_{table} ({columns}")
                };
                self.execute(statement).await?;
            }
        }
        self.commit().await
    }

    async fn columns(&mut self, table: &str) -> Result<Vec<(String, String)>, Error> {
        let columns = sqlx::query("SELECT name, type FROM pragma_table_info(?)")
            .bind(table)
            .fetch_all(&mut self.connection)
            .await?;
        let column = |row: &SqliteRow| Ok((row.try_get(0)?, row.try_get(1)?));
        columns.iter().map(column).collect()
    }

    async fn begin(&mut self) -> Result<(), Error> {
        if self.locked_at.is_none() {
            self.execute("BEGIN IMMEDIATE".to_owned()).await?;
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Error> {
        if self.locked_at.is_none() {
            self.execute("COMMIT".to_owned()).await?;
        }
        Ok(())
    }

    /// Leaves the file to a waiting projector, for half of the time that it had to wait.
    async fn yield_after(&self, begun: Instant) {
        tokio::time::sleep(begun.elapsed() / 2).await;
    }
}

fn row(row: &SqliteRow) -> Result<Row, Error> {
    Ok(Row {
        user_id: row.try_get("user_id")?,
        position: unsigned(row, "position")?,
        rest: [
            unsigned(row, "version")?.to_string(),
            row.try_get("username")?,
            row.try_get("document")?,
            row.try_get("words")?,
        ],
    })
}

#[async_trait]
impl Beside for SqliteBeside {
    fn position(&self) -> Position {
        self.position
    }

    async fn parked(&mut self) -> Result<Vec<Parked>, Error> {
        let tables = self.tables;
        let rows = sqlx::query(AssertSqlSafe(format!(
            "SELECT user_id, from_position, error, recorded_at FROM {tables}parked_users ORDER BY from_position"
        )))
        .fetch_all(&mut self.connection)
        .await?;
        Ok(rows.iter().map(parked).collect::<Result<_, _>>()?)
    }

    async fn documents(&mut self, users: &[UserId]) -> Result<Vec<Document>, Error> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let tables = self.tables;
        let rows = sqlx::query(AssertSqlSafe(format!(
            "SELECT user_id, document FROM {tables}users WHERE user_id IN (SELECT value FROM json_each(?))"
        )))
        .bind(serde_json::to_string(users).expect("strings are JSON"))
        .fetch_all(&mut self.connection)
        .await?;
        Ok(rows.iter().map(document).collect::<Result<_, _>>()?)
    }

    async fn load(&mut self, documents: &[&Document]) -> Result<(), Error> {
        for documents in documents.chunks(ROWS) {
            let begun = Instant::now();
            self.begin().await?;
            for documents in documents.chunks(INSERT) {
                let mut upsert = QueryBuilder::new("");
                let documents = documents.iter().copied();
                push_documents(&mut upsert, "next_", documents, Usernames::Other);
                upsert.build().execute(&mut self.connection).await?;
            }
            self.commit().await?;
            self.yield_after(begun).await;
        }
        Ok(())
    }

    async fn loaded(&mut self, position: Position, parked: &[Parked]) -> Result<(), Error> {
        let mut after = String::new();
        loop {
            let page = sqlx::query(
                "SELECT user_id, document FROM next_users WHERE user_id > ? ORDER BY user_id LIMIT +?",
            )
            .bind(&after)
            .bind(signed(ROWS as u64))
            .fetch_all(&mut self.connection)
            .await?;
            let Some(last) = page.last() else { break };
            after = last.try_get("user_id")?;
            let documents: Vec<Document> = page.iter().map(document).collect::<Result<_, _>>()?;
            let begun = Instant::now();
            self.begin().await?;
            let documents: Vec<_> = documents.iter().collect();
            write_words(&mut self.connection, "next_", &documents).await?;
            self.commit().await?;
            self.yield_after(begun).await;
        }
        self.begin().await?;
        self.execute("DELETE FROM projections WHERE name = 'next'".to_owned())
            .await?;
        sqlx::query("INSERT INTO projections (name, position, owner) VALUES ('next', 0, ?)")
            .bind(&self.run)
            .execute(&mut self.connection)
            .await?;
        self.commit().await?;
        self.apply(&Batch {
            from: 0,
            to: position,
            documents: Vec::new(),
            parked: parked.to_vec(),
            same_words: HashSet::new(),
            unparked: Vec::new(),
        })
        .await
    }

    async fn apply(&mut self, batch: &Batch) -> Result<(), Error> {
        let begun = Instant::now();
        self.begin().await?;
        let moved = sqlx::query(
            "UPDATE projections SET position = ? WHERE name = ? AND position = ? AND owner = ?",
        )
        .bind(signed(batch.to))
        .bind(self.row)
        .bind(signed(batch.from))
        .bind(&self.run)
        .execute(&mut self.connection)
        .await?;
        if moved.rows_affected() == 0 {
            return Err(Error::TakenOver);
        }
        write(&mut self.connection, self.tables, batch).await?;
        self.commit().await?;
        if self.locked_at.is_none() {
            self.yield_after(begun).await;
        }
        self.position = batch.to;
        Ok(())
    }

    async fn look(&mut self) -> Result<Position, Error> {
        // Without a transaction there is nothing to end.
        let _ = sqlx::raw_sql("ROLLBACK").execute(&mut self.look).await;
        sqlx::raw_sql("BEGIN").execute(&mut self.look).await?;
        let row = sqlx::query("SELECT position FROM projections WHERE name = 'users'")
            .fetch_one(&mut self.look)
            .await?;
        Ok(unsigned(&row, "position")?)
    }

    async fn rows(&mut self, of: Tables, which: Which<'_>) -> Result<Vec<Row>, Error> {
        let (tables, connection) = match of {
            Tables::Live => ("", &mut self.look),
            Tables::Beside => (self.tables, &mut self.connection),
        };
        let condition = match which {
            Which::Page(..) => "u.user_id > ? ORDER BY u.user_id LIMIT +?",
            Which::Users(_) => "u.user_id IN (SELECT value FROM json_each(?)) ORDER BY u.user_id",
        };
        let statement = AssertSqlSafe(format!(
            "SELECT u.user_id, u.version, u.position, u.username, u.document, coalesce((\
             SELECT group_concat(w.word, char(10) ORDER BY w.word) FROM {tables}user_words AS w \
             WHERE w.user_id = u.user_id), '') AS words FROM {tables}users AS u WHERE {condition}"
        ));
        let query = sqlx::query(statement);
        let query = match which {
            Which::Page(after, limit) => query.bind(after.to_owned()).bind(signed(limit as u64)),
            Which::Users(users) => {
                query.bind(serde_json::to_string(users).expect("strings are JSON"))
            }
        };
        query.fetch_all(connection).await?.iter().map(row).collect()
    }

    async fn lock(&mut self) -> Result<(), Error> {
        self.begin().await?;
        self.locked_at = Some(self.position);
        Ok(())
    }

    async fn swap(&mut self, are_equal: bool) -> Result<(), Error> {
        let _ = sqlx::raw_sql("ROLLBACK").execute(&mut self.look).await;
        let (tables, position) = (self.tables, self.position);
        let mut statements = Vec::new();
        if self.row == "next" {
            statements.extend(TABLES.map(|table| format!("DROP TABLE IF EXISTS old_{table}")));
        }
        // A projector caches which users are parked, and a step may have started with the earlier
        // documents. When these change, the projector must start again.
        statements.push(format!(
            "UPDATE projections SET owner = '' WHERE name = 'users' AND (NOT {are_equal} OR EXISTS (\
                SELECT user_id FROM parked_users WHERE user_id NOT IN (SELECT user_id FROM {tables}parked_users) \
                UNION ALL SELECT user_id FROM {tables}parked_users WHERE user_id NOT IN (SELECT user_id FROM parked_users))); \
             DELETE FROM projections WHERE name IN ('old', 'next'); \
             INSERT INTO projections SELECT 'old', position, '' FROM projections WHERE name = 'users'; \
             UPDATE projections SET position = {position} WHERE name = 'users'"
        ));
        statements.extend(TABLES.map(|table| {
            format!(
                "ALTER TABLE {table} RENAME TO out_{table}; \
                 ALTER TABLE {tables}{table} RENAME TO {table}; \
                 ALTER TABLE out_{table} RENAME TO old_{table}"
            )
        }));
        statements.push("COMMIT".to_owned());
        self.execute(statements.join("; ")).await?;
        self.locked_at = None;
        Ok(())
    }

    async fn unlock(&mut self) -> Result<(), Error> {
        if let Some(position) = self.locked_at.take() {
            self.position = position;
        }
        self.execute("ROLLBACK".to_owned()).await
    }

    async fn remove(&mut self) -> Result<(), Error> {
        let tables = self.tables;
        let drops = TABLES.map(|table| format!("DROP TABLE {tables}{table}"));
        let drops = drops.join("; ");
        let row = self.row;
        let _ = sqlx::raw_sql("ROLLBACK").execute(&mut self.look).await;
        self.execute(format!(
            "BEGIN IMMEDIATE; DELETE FROM projections WHERE name = '{row}'; {drops}; COMMIT"
        ))
        .await
    }

    async fn end(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}
