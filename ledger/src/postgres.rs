//! Access to a PostgreSQL database: with bounded waits, through a connection pooler or directly,
//! and with migrations that many processes may apply at once.
//!
//! The ledger and the read model each have their own schema, so one database can hold both. All
//! names are written with their schema, and nothing is set for a session: behind a pooler every
//! transaction may run on another connection.
//!
//! On a direct connection statements are prepared once per connection, and each operation is one
//! round trip. Behind a pooler that assigns connections per transaction, the URL must end in
//! `?statement-cache-capacity=0`. Each operation is then a transaction of unnamed statements, with
//! three more round trips. Without this parameter such a pooler refuses the connection immediately,
//! because of the time limit that is set at the start of the session.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{Connection as _, PgConnection, Postgres, Row as _};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use events::Position;

/// The wait for a connection, and then for the answer: less than 2 s together.
const CONNECTED: Duration = Duration::from_millis(750);
const ANSWERED: Duration = Duration::from_millis(1_000);
/// The server cancels a statement before this program stops waiting, so no statement continues
/// unnoticed.
const STATEMENT_TIMEOUT: &str = "950ms";
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = '950ms'; SET LOCAL idle_in_transaction_session_timeout = '2s'";
const BEGIN_READ_ONLY: &str = "BEGIN READ ONLY; SET LOCAL statement_timeout = '950ms'; SET LOCAL idle_in_transaction_session_timeout = '2s'";

/// How often a position that other processes move is queried: while it moves, while it rests, and
/// while nobody waits for it.
const MOVING: Duration = Duration::from_millis(10);
const RESTING: Duration = Duration::from_millis(100);
const UNWATCHED: Duration = Duration::from_secs(1);
/// How long an unavailable database is left alone.
const AWAY: Duration = Duration::from_secs(1);

/// A statement and its arguments.
pub type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// Connections to one PostgreSQL database.
pub struct Database {
    options: PgConnectOptions,
    connections: u32,
    /// Whether a pooler may run every transaction on another connection.
    is_pooled: bool,
    begin: &'static str,
    pool: Mutex<Pool>,
}

/// A transaction. Unless it was committed, its connection is closed, which ends the transaction on
/// the server. sqlx would return to the pool a connection whose `BEGIN` is still in flight; writes
/// of its next user would never be committed.
pub struct Transaction {
    connection: Option<PoolConnection<Postgres>>,
    pool: Pool,
}

impl Drop for Transaction {
    fn drop(&mut self) {
        drop(self.connection.take().map(PoolConnection::detach));
    }
}

#[derive(Clone)]
struct Pool {
    connections: PgPool,
    /// Distinguishes a pool from the one that replaced it.
    generation: u64,
}

impl Database {
    /// A database that is connected on first use, with at most this many connections.
    pub fn new(url: &str, connections: u32) -> Result<Self, sqlx::Error> {
        Self::with(url, connections, false)
    }

    /// The same, but the server refuses every change.
    pub fn read_only(url: &str, connections: u32) -> Result<Self, sqlx::Error> {
        Self::with(url, connections, true)
    }

    fn with(url: &str, connections: u32, is_read_only: bool) -> Result<Self, sqlx::Error> {
        let is_pooled = is_pooled(url);
        let mut options = options(url)?;
        if !is_pooled {
            options = options.options([
                ("statement_timeout", STATEMENT_TIMEOUT),
                // A plan made while a table was small would keep reading the whole table after it
                // has grown, until statistics are collected. Every statement has an index, and JIT
                // compilation never pays off.
                ("enable_seqscan", "off"),
                ("jit", "off"),
            ]);
            if is_read_only {
                options = options.options([("default_transaction_read_only", "on")]);
            }
        }
        Ok(Self {
            begin: if is_read_only { BEGIN_READ_ONLY } else { BEGIN },
            pool: Mutex::new(Pool {
                connections: pool(&options, connections),
                generation: 0,
            }),
            options,
            connections,
            is_pooled,
        })
    }

    /// The rows of a statement that changes nothing. It is repeated once when the connection turns
    /// out to be broken.
    pub async fn read<'q>(
        &self,
        statement: impl Fn() -> Statement<'q> + Send + Sync,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let answer = async {
            match self.write(statement()).await {
                Err(error) if is_broken(&error) => self.write(statement()).await,
                answer => answer,
            }
        };
        timeout(CONNECTED + ANSWERED, answer).await
    }

    /// The rows of a statement that is a transaction of its own. After an error it may have been
    /// committed all the same, unless the database refused it.
    pub async fn write(&self, statement: Statement<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        if self.is_pooled {
            let written = async {
                let mut transaction = self.begin().await?;
                let rows = self.within(&mut transaction, statement).await?;
                self.commit(transaction).await?;
                Ok(rows)
            };
            // Boxed, so that the usual operation does not carry the memory of this one.
            return timeout(CONNECTED + ANSWERED, Box::pin(written)).await;
        }
        let pool = self.pool();
        let mut connection = pool.connections.acquire().await?;
        // `fetch_all` also waits for the commit after the last row.
        let answer = timeout(ANSWERED, statement.fetch_all(&mut *connection)).await;
        if answer.as_ref().is_err_and(is_broken) {
            drop(connection.detach());
            self.replace(&pool);
        }
        answer
    }

    /// Begins a transaction. The server ends it after 2 s without a statement.
    pub async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        let pool = self.pool();
        let connection = pool.connections.acquire().await?;
        let mut transaction = Transaction {
            connection: Some(connection),
            pool,
        };
        let begin = self.begin;
        self.answer(&mut transaction, async |connection| {
            sqlx::raw_sql(begin).execute(connection).await
        })
        .await?;
        Ok(transaction)
    }

    /// The rows of a statement within a transaction.
    pub async fn within(
        &self,
        transaction: &mut Transaction,
        statement: Statement<'_>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let statement = statement.persistent(!self.is_pooled);
        self.answer(transaction, async |connection| {
            statement.fetch_all(connection).await
        })
        .await
    }

    /// Commits a transaction whose statements all succeeded. After an error it may have been
    /// committed all the same.
    pub async fn commit(&self, mut transaction: Transaction) -> Result<(), sqlx::Error> {
        self.answer(&mut transaction, async |connection| {
            sqlx::raw_sql("COMMIT").execute(connection).await
        })
        .await?;
        // Returns the connection to the pool.
        drop(transaction.connection.take());
        Ok(())
    }

    async fn answer<T>(
        &self,
        transaction: &mut Transaction,
        question: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let connection = transaction.connection.as_mut().expect("not committed yet");
        let answer = timeout(ANSWERED, question(connection)).await;
        if answer.as_ref().is_err_and(is_broken) {
            self.replace(&transaction.pool);
        }
        answer
    }

    fn pool(&self) -> Pool {
        self.pool
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces a pool with a broken connection: most likely the others are broken too, and each
    /// would fail another operation. Operations in progress finish on the old pool.
    fn replace(&self, broken: &Pool) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.generation == broken.generation {
            *pool = Pool {
                connections: self::pool(&self.options, self.connections),
                generation: broken.generation + 1,
            };
        }
    }
}

fn is_pooled(url: &str) -> bool {
    url.split_once('?').is_some_and(|(_, parameters)| {
        parameters
            .split('&')
            .any(|parameter| parameter == "statement-cache-capacity=0")
    })
}

fn options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    // Poolers refuse unknown start parameters.
    Ok(url.parse::<PgConnectOptions>()?.extra_float_digits(None))
}

fn pool(options: &PgConnectOptions, connections: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(CONNECTED)
        .test_before_acquire(false)
        .connect_lazy_with(options.clone())
}

async fn timeout<T>(
    time: Duration,
    operation: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(time, operation)
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())))
}

/// Whether the connection caused an error, rather than the statement.
fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::BeginFailed
        | sqlx::Error::WorkerCrashed => true,
        // The server shuts down or ended the session, or a pooler lost it.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code.starts_with("08") || ["57P01", "57P02", "57P03", "25P03"].contains(&&*code)
        }),
        _ => false,
    }
}

/// A connection without time limits, for work of unknown length. Its session must hold no state:
/// behind a pooler every transaction may run on another connection.
pub async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    PgConnection::connect_with(&options(url)?).await
}

/// Whether these migrations are applied to a schema. Later migrations of a newer program only add
/// things.
pub async fn is_migrated(
    database: &Database,
    schema: &'static str,
    migrations: &Migrator,
) -> Result<bool, sqlx::Error> {
    let applied = match database
        .read(|| {
            sqlx::query(sqlx::AssertSqlSafe(format!(
                "SELECT version FROM {schema}.migrations"
            )))
        })
        .await
    {
        Ok(rows) => rows,
        // The schema or table does not exist.
        Err(sqlx::Error::Database(error))
            if ["3F000", "42P01"].contains(&error.code().unwrap_or_default().as_ref()) =>
        {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    let applied: Vec<i64> = applied
        .iter()
        .map(|row| row.try_get("version"))
        .collect::<Result<_, _>>()?;
    Ok(migrations
        .iter()
        .all(|migration| applied.contains(&migration.version)))
}

/// Applies the migrations that a schema lacks, all or none. Concurrent processes take turns.
pub async fn migrate(
    url: &str,
    schema: &'static str,
    migrations: &Migrator,
) -> Result<(), MigrateError> {
    let mut migrator = Migrator::with_migrations(migrations.iter().cloned().collect());
    migrator.dangerous_set_table_name(format!("{schema}.migrations"));
    migrator.set_ignore_missing(true);
    // sqlx would lock for the session and, behind a pooler, unlock another session. A transaction's
    // lock is released automatically.
    migrator.set_locking(false);
    let mut connection = PgConnection::connect_with(&options(url)?).await?;
    let mut transaction = connection.begin().await?;
    let forget = if is_pooled(url) {
        // sqlx leaves its prepared statements on a connection that others will use.
        "DEALLOCATE ALL;"
    } else {
        ""
    };
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "{forget} SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock(hashtext('profile-ledger'))"
    )))
    .execute(&mut *transaction)
    .await?;
    // Not `IF NOT EXISTS`, which requires the right to create schemas even when it creates none.
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = '{schema}') THEN CREATE SCHEMA {schema}; END IF; END $$"
    )))
    .execute(&mut *transaction)
    .await?;
    migrator.run(&mut *transaction).await?;
    if !forget.is_empty() {
        sqlx::raw_sql(forget).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    connection.close().await?;
    Ok(())
}

/// A position in the database that other processes also move.
///
/// One task queries it for all waiters: frequently while it moves, ten times a second while it
/// rests, and once a second while nobody waits. `LISTEN` is not used: it needs a session, which a
/// pooler does not provide, and missed notifications would still have to be queried. `NOTIFY` would
/// queue commits for a lock of the whole server.
pub struct Followed {
    position: watch::Sender<Position>,
    subscribed: Notify,
}

impl Followed {
    /// A position that is not known yet, and the task that follows it with a statement of one row
    /// and column. Dropping the set ends the task.
    pub fn new(database: Arc<Database>, statement: &'static str) -> (Arc<Self>, JoinSet<()>) {
        let followed = Arc::new(Self {
            position: watch::Sender::new(0),
            subscribed: Notify::new(),
        });
        let mut task = JoinSet::new();
        task.spawn(Arc::clone(&followed).follow(database, statement));
        (followed, task)
    }

    /// A receiver that waits for changes. It never runs ahead of what can be read.
    pub fn subscribe(&self) -> watch::Receiver<Position> {
        let receiver = self.position.subscribe();
        self.subscribed.notify_one();
        receiver
    }

    /// The position known now, to be passed to [`Followed::saw`].
    pub fn known(&self) -> Position {
        *self.position.borrow()
    }

    /// Records a position that the database answered, with the position that was known when the query
    /// was sent. Returns whether the known position changed. It may go back, after a restore from a
    /// backup; an answer that was overtaken does not move it back.
    pub fn saw(&self, known: Position, position: Position) -> bool {
        self.position.send_if_modified(|current| {
            let new = if *current == known {
                position
            } else {
                position.max(*current)
            };
            std::mem::replace(current, new) != new
        })
    }

    /// Records that this process has moved the position.
    pub fn moved(&self, position: Position) {
        self.position.send_if_modified(|current| {
            let is_new = position > *current;
            *current = position.max(*current);
            is_new
        });
    }

    async fn follow(self: Arc<Self>, database: Arc<Database>, statement: &'static str) {
        let mut pause = MOVING;
        let mut is_away = false;
        loop {
            if self.position.receiver_count() == 0 {
                pause = UNWATCHED;
            }
            // All waiters share one query.
            tokio::time::sleep(MOVING).await;
            tokio::select! {
                () = self.subscribed.notified() => pause = MOVING,
                () = tokio::time::sleep(pause.saturating_sub(MOVING)) => {}
            }
            let known = self.known();
            let answer = database.read(|| sqlx::query(statement)).await;
            let position = answer.and_then(|rows| {
                let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
                row.try_get::<i64, _>(0)
            });
            match position {
                Ok(position) => {
                    is_away = false;
                    let has_moved = self.saw(known, position.unsigned_abs());
                    pause = if has_moved {
                        MOVING
                    } else {
                        (pause * 2).clamp(MOVING, RESTING)
                    };
                }
                Err(error) => {
                    if !is_away {
                        tracing::warn!(%error, "A position cannot be followed; it will be queried again");
                    }
                    is_away = true;
                    pause = AWAY;
                }
            }
        }
    }
}

/// A text without the character U+0000, which PostgreSQL cannot store.
pub fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A number as a signed integer of PostgreSQL; positions, versions and counts are far below the
/// limit.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
