//! A PostgreSQL database as this program uses it: with bounded waits, through a connection pooler or
//! not, and with migrations that many processes may apply at once.
//!
//! The ledger and the read model each have a schema of their own, so both can live in one database. All
//! names are written with their schema and nothing is set for a session, because behind a pooler every
//! transaction may run on another connection.
//!
//! Directly connected, statements are prepared once a connection and each operation is one round trip.
//! Behind a pooler that hands out connections a transaction at a time the URL must end in
//! `?statement-cache-capacity=0`: then each operation is a transaction of statements without a name, three
//! round trips more. Without it such a pooler refuses this program at once, for the time limit that it
//! sets at the start of a session.

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

/// How long an operation waits for a connection, and then for its answer: less than 2 s together.
const CONNECTED: Duration = Duration::from_millis(750);
const ANSWERED: Duration = Duration::from_millis(1_000);
/// The server gives up a statement itself before this program stops waiting, so that nothing goes on there
/// of which nobody knows.
const STATEMENT_TIMEOUT: &str = "950ms";
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = '950ms'; SET LOCAL idle_in_transaction_session_timeout = '2s'";
const BEGIN_READ_ONLY: &str = "BEGIN READ ONLY; SET LOCAL statement_timeout = '950ms'; SET LOCAL idle_in_transaction_session_timeout = '2s'";

/// How often a position that other processes move is asked for: while it moves, while it does not, and
/// while nobody waits for it.
const MOVING: Duration = Duration::from_millis(10);
const RESTING: Duration = Duration::from_millis(100);
const UNWATCHED: Duration = Duration::from_secs(1);
/// How long to leave a database alone that is away.
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

/// A transaction. Unless it was committed its connection is closed, which ends it on the server: sqlx
/// would give a connection back to the pool whose `BEGIN` is still under way, and what the next one
/// writes there is never committed.
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
    /// Tells a pool from the one that took its place.
    generation: u64,
}

impl Database {
    /// A database that is connected to when it is first needed, with so many connections at the most.
    pub fn new(url: &str, connections: u32) -> Result<Self, sqlx::Error> {
        Self::with(url, connections, false)
    }

    /// The same, but the server refuses whatever would change something.
    pub fn read_only(url: &str, connections: u32) -> Result<Self, sqlx::Error> {
        Self::with(url, connections, true)
    }

    fn with(url: &str, connections: u32, is_read_only: bool) -> Result<Self, sqlx::Error> {
        let is_pooled = is_pooled(url);
        let mut options = options(url)?;
        if !is_pooled {
            options = options.options([
                ("statement_timeout", STATEMENT_TIMEOUT),
                // A statement that was prepared while a table was small would go on reading all of it when it has
                // grown, until statistics are made. Every statement has an index, and none is worth compiling.
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

    /// The rows of a statement that changes nothing. It is asked once more when the connection turns out
    /// to be broken.
    pub async fn read<'q>(
        &self,
        statement: impl Fn() -> Statement<'q> + Send + Sync,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let asked = async {
            match self.write(statement()).await {
                Err(error) if is_broken(&error) => self.write(statement()).await,
                answer => answer,
            }
        };
        timeout(CONNECTED + ANSWERED, asked).await
    }

    /// The rows of a statement that is a transaction by itself. After an error it may have taken place
    /// nevertheless, unless the database has refused it.
    pub async fn write(&self, statement: Statement<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        if self.is_pooled {
            let written = async {
                let mut transaction = self.begin().await?;
                let rows = self.within(&mut transaction, statement).await?;
                self.commit(transaction).await?;
                Ok(rows)
            };
            // Kept apart: the usual operation is not to carry the memory of this one.
            return timeout(CONNECTED + ANSWERED, Box::pin(written)).await;
        }
        let pool = self.pool();
        let mut connection = pool.connections.acquire().await?;
        // `fetch_all` also waits for the commit, after the last row.
        let answer = timeout(ANSWERED, statement.fetch_all(&mut *connection)).await;
        if answer.as_ref().is_err_and(is_broken) {
            drop(connection.detach());
            self.replace(&pool);
        }
        answer
    }

    /// Begins a transaction. Left alone for 2 s, the server ends it.
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

    /// Commits a transaction in which no statement has failed. After an error it may have taken place
    /// nevertheless.
    pub async fn commit(&self, mut transaction: Transaction) -> Result<(), sqlx::Error> {
        self.answer(&mut transaction, async |connection| {
            sqlx::raw_sql("COMMIT").execute(connection).await
        })
        .await?;
        // Back to the pool.
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

    /// A connection of this pool was found broken: others most likely are, too, and each would fail
    /// another operation. What still works finishes on the old pool.
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
    // Poolers refuse start parameters that they do not know.
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

/// Whether an error is the connection's and not the statement's.
fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::BeginFailed
        | sqlx::Error::WorkerCrashed => true,
        // The server shuts down, ended the session, or a pooler has lost it.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code.starts_with("08") || ["57P01", "57P02", "57P03", "25P03"].contains(&&*code)
        }),
        _ => false,
    }
}

/// A connection without limits of time, for work that takes as long as it takes. Nothing may be kept in its
/// session: behind a pooler every transaction may run on another one.
pub async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    PgConnection::connect_with(&options(url)?).await
}

/// Whether a schema holds what these migrations make. Later migrations of a newer program only add.
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
        // There is no such schema or table.
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

/// Applies the migrations that a schema lacks, all or none. Processes that do so at once take turns.
pub async fn migrate(
    url: &str,
    schema: &'static str,
    migrations: &Migrator,
) -> Result<(), MigrateError> {
    let mut migrator = Migrator::with_migrations(migrations.iter().cloned().collect());
    migrator.dangerous_set_table_name(format!("{schema}.migrations"));
    migrator.set_ignore_missing(true);
    // sqlx would lock for the session, and behind a pooler unlock another one: a lock of the transaction
    // is left by itself.
    migrator.set_locking(false);
    let mut connection = PgConnection::connect_with(&options(url)?).await?;
    let mut transaction = connection.begin().await?;
    let forget = if is_pooled(url) {
        // sqlx leaves its statements on a connection that others will use.
        "DEALLOCATE ALL;"
    } else {
        ""
    };
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "{forget} SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock(hashtext('profile-ledger'))"
    )))
    .execute(&mut *transaction)
    .await?;
    // Not `IF NOT EXISTS`, which asks for the right to make schemas even where it makes none.
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

/// A position in the database that other processes move, too.
///
/// One task asks for it, however many wait: often while it moves, ten times a second while it rests, and
/// once a second while nobody waits. No `LISTEN`: that needs a session of its own, which a pooler does not give, and still needs
/// asking for what was missed; and `NOTIFY` makes commits queue up for a lock of the whole server.
pub struct Followed {
    position: watch::Sender<Position>,
    subscribed: Notify,
}

impl Followed {
    /// A position that is not known yet, and the task that follows it in the only row and column of a
    /// statement; dropping the set ends it.
    pub fn new(database: Arc<Database>, statement: &'static str) -> (Arc<Self>, JoinSet<()>) {
        let followed = Arc::new(Self {
            position: watch::Sender::new(0),
            subscribed: Notify::new(),
        });
        let mut task = JoinSet::new();
        task.spawn(Arc::clone(&followed).follow(database, statement));
        (followed, task)
    }

    /// For waiting on changes. It never runs ahead of what can be read.
    pub fn subscribe(&self) -> watch::Receiver<Position> {
        let receiver = self.position.subscribe();
        self.subscribed.notify_one();
        receiver
    }

    /// What is known now; to be given to [`Followed::saw`].
    pub fn known(&self) -> Position {
        *self.position.borrow()
    }

    /// The database answered with a position, asked when another one was known. It may have gone back, when
    /// what was followed was restored from a backup; an answer that was overtaken is no such case.
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

    /// This process has moved the position there.
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
            // However many come to wait, they are asked for together.
            tokio::time::sleep(MOVING).await;
            tokio::select! {
                () = self.subscribed.notified() => pause = MOVING,
                () = tokio::time::sleep(pause.saturating_sub(MOVING)) => {}
            }
            let known = self.known();
            let asked = database.read(|| sqlx::query(statement)).await;
            let position = asked.and_then(|rows| {
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
                        tracing::warn!(%error, "A position cannot be followed; trying again");
                    }
                    is_away = true;
                    pause = AWAY;
                }
            }
        }
    }
}

/// A text as PostgreSQL can hold it: without the character 0.
pub fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// PostgreSQL's integers are signed; positions, versions and counts are far from their limit.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
