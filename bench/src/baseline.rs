//! Baselines: the speed of the machine without the service.

use std::future::IntoFuture as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{FromRef, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use clap::Args as Arguments;
use futures::TryStreamExt as _;
use http_kit::caller::{Caller, OptionalCaller, Verifier};
use http_kit::clock::Clock;
use http_kit::keys::Keys;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::installation::Installation;
use crate::load::{Latencies, count, latencies, record};
use crate::service::Service;

/// A row as large as the envelope of a profile change.
const ROW: [u8; 600] = [b'x'; 600];

/// The result of commits of one row each.
pub(crate) struct Commits {
    pub(crate) rate: f64,
    pub(crate) latencies: Latencies,
}

/// The database to which bare rows are committed.
pub(crate) enum Rows {
    Postgres(String),
    Sqlite(PathBuf),
}

impl Rows {
    /// Creates a table beside the ledger.
    pub(crate) async fn new(installation: &Installation) -> anyhow::Result<Self> {
        if let Some(url) = &installation.database_url {
            let mut connection = PgConnection::connect(url).await?;
            sqlx::raw_sql(
                "CREATE TABLE bare_rows (id bigserial PRIMARY KEY, payload bytea NOT NULL)",
            )
            .execute(&mut connection)
            .await?;
            return Ok(Self::Postgres(url.clone()));
        }
        Ok(Self::Sqlite(installation.path("bare.db")))
    }

    /// Runs clients that each commit one row after the other for a given time.
    pub(crate) async fn commit(&self, clients: u32, time: Duration) -> anyhow::Result<Commits> {
        match self {
            Self::Postgres(url) => commit_postgres(url, clients, time).await,
            Self::Sqlite(path) => commit_sqlite(path, clients, time).await,
        }
    }

    /// Runs the same with pgbench and returns commits per second, or `None` if pgbench is not installed.
    pub(crate) async fn pgbench(
        &self,
        clients: u32,
        time: Duration,
    ) -> anyhow::Result<Option<f64>> {
        let (Self::Postgres(url), Some(pgbench)) = (self, pgbench()) else {
            return Ok(None);
        };
        let script = tempfile::NamedTempFile::new()?;
        let payload = "x".repeat(ROW.len());
        std::fs::write(
            script.path(),
            format!("INSERT INTO bare_rows (payload) VALUES ('{payload}');\n"),
        )?;
        let output = Command::new(pgbench)
            .args([
                "-n",
                "-M",
                "prepared",
                "-j",
                "2",
                "-c",
                &clients.to_string(),
            ])
            .args(["-T", &time.as_secs().max(1).to_string(), "-f"])
            .arg(script.path())
            .arg(url)
            .stdin(Stdio::null())
            .output()
            .await
            .context("pgbench cannot be started")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let rate = text
            .lines()
            .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        let why = || String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(Some(rate.with_context(why)?))
    }
}

/// Finds pgbench. Debian installs it outside a user's PATH.
fn pgbench() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let versions = versions.flatten().map(|version| version.path().join("bin"));
    std::env::split_paths(&path)
        .chain(versions)
        .map(|folder| folder.join("pgbench"))
        .find(|program| program.is_file())
}

async fn commit_postgres(url: &str, clients: u32, time: Duration) -> anyhow::Result<Commits> {
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(PgConnection::connect(url).await?);
    }
    let began = Instant::now();
    let mut running = JoinSet::new();
    for mut connection in connections {
        running.spawn(async move {
            let mut latencies = latencies();
            while began.elapsed() < time {
                let from = Instant::now();
                sqlx::query("INSERT INTO bare_rows (payload) VALUES ($1)")
                    .bind(&ROW[..])
                    .execute(&mut connection)
                    .await?;
                record(&mut latencies, from.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    collect(running, began).await
}

async fn commit_sqlite(path: &Path, clients: u32, time: Duration) -> anyhow::Result<Commits> {
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .connect()
        .await?;
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS bare_rows (id integer PRIMARY KEY, payload blob NOT NULL)",
    )
    .execute(&mut connection)
    .await?;
    let connection = Arc::new(Mutex::new(connection));
    let began = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let connection = Arc::clone(&connection);
        running.spawn(async move {
            let mut latencies = latencies();
            while began.elapsed() < time {
                let from = Instant::now();
                let mut connection = connection.lock().await;
                sqlx::query("INSERT INTO bare_rows (payload) VALUES (?)")
                    .bind(&ROW[..])
                    .execute(&mut *connection)
                    .await?;
                drop(connection);
                record(&mut latencies, from.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    collect(running, began).await
}

async fn collect(
    mut running: JoinSet<anyhow::Result<Latencies>>,
    began: Instant,
) -> anyhow::Result<Commits> {
    let mut all = latencies();
    while let Some(done) = running.join_next().await {
        all.add(done??)?;
    }
    let rate = count(all.len()) / began.elapsed().as_secs_f64();
    Ok(Commits {
        rate,
        latencies: all,
    })
}

/// Reads all envelopes of the ledger one after the other. Returns their number and the seconds it took.
pub(crate) async fn read_in_order(installation: &Installation) -> anyhow::Result<(u64, f64)> {
    let mut events = 0;
    let mut bytes = 0;
    let began;
    if let Some(url) = &installation.database_url {
        let mut connection = PgConnection::connect(url).await?;
        began = Instant::now();
        let mut rows = sqlx::query_scalar::<_, Vec<u8>>(
            "SELECT envelope FROM ledger.events ORDER BY position",
        )
        .fetch(&mut connection);
        while let Some(envelope) = rows.try_next().await? {
            events += 1;
            bytes += envelope.len();
        }
    } else {
        let mut connection = SqliteConnectOptions::new()
            .filename(installation.ledger_file())
            .read_only(true)
            .connect()
            .await?;
        began = Instant::now();
        let mut rows =
            sqlx::query_scalar::<_, Vec<u8>>("SELECT envelope FROM events ORDER BY position")
                .fetch(&mut connection);
        while let Some(envelope) = rows.try_next().await? {
            events += 1;
            bytes += envelope.len();
        }
    }
    std::hint::black_box(bytes);
    Ok((events, began.elapsed().as_secs_f64()))
}

/// Arguments of a server that sends the same answer from memory to every request.
#[derive(Debug, Clone, Arguments)]
pub(crate) struct AnswerArgs {
    /// The bytes of every answer
    body: PathBuf,
}

#[derive(Clone)]
struct FromMemory {
    body: Bytes,
    verifier: Arc<Verifier>,
}

impl FromRef<FromMemory> for Arc<Verifier> {
    fn from_ref(state: &FromMemory) -> Self {
        Arc::clone(&state.verifier)
    }
}

/// Runs the server that answers from memory, until it is stopped.
pub(crate) async fn answer(stop: CancellationToken, args: &AnswerArgs) -> anyhow::Result<()> {
    let secret = std::env::var("JWT_SECRET").context("JWT_SECRET is not set")?;
    let state = FromMemory {
        body: std::fs::read(&args.body)?.into(),
        verifier: Arc::new(Verifier::new(
            Keys::secret(secret.as_bytes())?,
            None,
            None,
            Clock::system(),
        )),
    };
    let json = |body| ([(CONTENT_TYPE, "application/json")], body).into_response();
    let router = Router::new()
        .route(
            "/own",
            get(async move |_: Caller, State(state): State<FromMemory>| json(state.body)),
        )
        .route(
            "/public",
            get(async move |_: OptionalCaller, State(state): State<FromMemory>| json(state.body)),
        )
        .with_state(state);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!(
        "The baseline is running on http://{}",
        listener.local_addr()?
    );
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    tokio::select! {
        served = axum::serve(listener, router).into_future() => Ok(served?),
        () = stop.cancelled() => Ok(()),
    }
}

/// Starts the server that answers from memory as a separate process.
pub(crate) async fn start_answering(
    installation: &Installation,
    body: &[u8],
) -> anyhow::Result<Service> {
    let path = installation.path("answer");
    std::fs::write(&path, body)?;
    let program = std::env::current_exe().context("the path of this program is unknown")?;
    let mut command = installation.configured(&program);
    command.arg("answer").arg(path);
    Service::start(&mut command, &installation.path("log")).await
}
