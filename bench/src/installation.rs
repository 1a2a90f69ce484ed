//! One installation of the service, for one measurement: its program, its configuration and its data.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr as _;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use ledger::store::EventStore;
use ledger::store::postgres::PostgresStore;
use ledger::store::sqlite::SqliteStore;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;

use crate::run::Settings;
use crate::service::{Service, log_file};
use crate::usage::watch;

/// The program, the configuration and the data of one service.
pub(crate) struct Installation {
    folder: TempDir,
    program: PathBuf,
    secret: String,
    server: Option<PgConnectOptions>,
    database: String,
    pub(crate) database_url: Option<String>,
    nats_url: Option<String>,
}

/// Connects to a database server, to create and drop databases.
async fn connect(server: &PgConnectOptions) -> anyhow::Result<PgConnection> {
    let connection = PgConnection::connect_with(server).await;
    connection.context("cannot connect to the server of DATABASE_URL")
}

/// Replaces the database in a URL.
fn with_database(url: &str, database: &str) -> String {
    let (address, parameters) = match url.split_once('?') {
        Some((address, parameters)) => (address, format!("?{parameters}")),
        None => (url, String::new()),
    };
    let (scheme, rest) = address.split_once("://").unwrap_or(("postgres", address));
    let host = rest.split_once('/').map_or(rest, |(host, _)| host);
    format!("{scheme}://{host}/{database}{parameters}")
}

impl Installation {
    /// Lends a new installation to a measurement. It is removed afterwards, also if the measurement fails or is stopped.
    pub(crate) async fn lend<T>(
        settings: &Settings,
        measure: impl AsyncFnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut installation = Self::new(settings).await?;
        let measured = tokio::select! {
            biased;
            () = settings.stop.cancelled() => Err(anyhow!("stopped")),
            measured = measure(&mut installation) => measured,
        };
        let measured = measured.map_err(|error| anyhow!("{error:#}{}", installation.complaints()));
        let closed = installation.close().await;
        // The first error explains more than a failed removal.
        let measured = measured?;
        closed?;
        Ok(measured)
    }

    /// Creates a folder and, on PostgreSQL, a database.
    async fn new(settings: &Settings) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&settings.data_dir)
            .with_context(|| format!("cannot create {}", settings.data_dir.display()))?;
        let folder = TempDir::with_prefix_in("bench-", &settings.data_dir)
            .with_context(|| format!("cannot write to {}", settings.data_dir.display()))?;
        let database = format!(
            "profile_ledger_bench_{}",
            hex::encode(settings.randomness.bytes::<6>())
        );
        let server = match &settings.database_url {
            Some(url) => {
                Some(PgConnectOptions::from_str(url).context("DATABASE_URL is not a valid URL")?)
            }
            None => None,
        };
        let mut database_url = None;
        if let Some(server) = &server {
            let statement = sqlx::AssertSqlSafe(format!("CREATE DATABASE {database}"));
            sqlx::raw_sql(statement)
                .execute(&mut connect(server).await?)
                .await
                .context("cannot create a database: the user of DATABASE_URL needs the CREATEDB privilege")?;
            let url = settings.database_url.as_deref().unwrap_or_default();
            database_url = Some(with_database(url, &database));
        }
        Ok(Self {
            folder,
            program: settings.service.clone(),
            secret: hex::encode(settings.randomness.bytes::<16>()),
            server,
            database,
            database_url,
            nats_url: None,
        })
    }

    /// Drops the database. The folder is removed when the value is dropped.
    async fn close(self) -> anyhow::Result<()> {
        if let Some(server) = &self.server {
            let statement = format!("DROP DATABASE {} WITH (FORCE)", self.database);
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
                .execute(&mut connect(server).await?)
                .await
                .with_context(|| format!("the database {} could not be dropped", self.database))?;
        }
        Ok(())
    }

    /// Sets the NATS server to which the service publishes from its next start on.
    pub(crate) fn publish_to(&mut self, nats_url: Option<&str>) {
        self.nats_url = nats_url.map(ToOwned::to_owned);
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The file of the ledger, if it is in SQLite.
    pub(crate) fn ledger_file(&self) -> PathBuf {
        self.path("data").join("ledger.db")
    }

    /// Opens the existing ledger. No service may be running.
    pub(crate) async fn store(&self) -> anyhow::Result<Arc<dyn EventStore>> {
        Ok(match &self.database_url {
            Some(url) => Arc::new(PostgresStore::open(url).await?),
            None => Arc::new(SqliteStore::open(&self.ledger_file()).await?),
        })
    }

    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    /// The service's program with this configuration.
    pub(crate) fn command(&self) -> Command {
        self.configured(&self.program)
    }

    /// A program with this configuration, and without any other variable that configures the service.
    pub(crate) fn configured(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let ours = [
            "READ_MODEL_URL",
            "PHOTO_STORE",
            "PUBLIC_URL",
            "API_SERVERS",
            "LOG_KEY",
            "JWT_PUBLIC_KEY",
            "JWT_JWKS",
            "JWT_ISSUER",
            "JWT_AUDIENCE",
            "DATABASE_URL",
            "NATS_URL",
        ];
        for variable in ours {
            command.env_remove(variable);
        }
        command
            .env("LISTEN", "127.0.0.1:0")
            .env("DATA_DIR", self.path("data"))
            .env("JWT_SECRET", &self.secret)
            .kill_on_drop(true)
            .stdin(Stdio::null());
        if let Some(url) = &self.database_url {
            command.env("DATABASE_URL", url);
        }
        if let Some(url) = &self.nats_url {
            command.env("NATS_URL", url);
        }
        command
    }

    /// Starts the whole service and waits until it is ready.
    pub(crate) async fn start(&self) -> anyhow::Result<Service> {
        let mut service = self.start_unready().await?;
        service.await_ready().await?;
        Ok(service)
    }

    /// Starts the whole service and waits until it prints its address.
    pub(crate) async fn start_unready(&self) -> anyhow::Result<Service> {
        Service::start(&mut self.command(), &self.path("log")).await
    }

    /// Runs a command of the service's program. Fails if the command fails.
    pub(crate) async fn run(&self, arguments: &[&str]) -> anyhow::Result<Finished> {
        let log = log_file(&self.path("log"))?;
        let began = Instant::now();
        let child = self
            .command()
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("the service's program cannot be started")?;
        let usage = tokio::spawn(watch(child.id()));
        let output = child.wait_with_output().await?;
        let seconds = began.elapsed().as_secs_f64();
        let usage = usage.await?;
        if !output.status.success() {
            bail!(
                "`profile-ledger {}` ended with {}: {}{}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stdout),
                self.last_of_log(),
            )
        }
        Ok(Finished {
            seconds,
            cpu: usage.cpu,
            peak: usage.peak,
        })
    }

    /// The last warnings and errors in the log of the service, one per line.
    fn complaints(&self) -> String {
        let log = std::fs::read(self.path("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let is_complaint = |line: &&str| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
        let last: Vec<_> = log.lines().rev().filter(is_complaint).take(5).collect();
        last.iter().rev().fold(String::new(), |mut all, line| {
            all.push('\n');
            all.push_str(line);
            all
        })
    }

    fn last_of_log(&self) -> String {
        let log = std::fs::read(self.path("log")).unwrap_or_default();
        let from = log.len().saturating_sub(2_000);
        String::from_utf8_lossy(&log[from..]).into_owned()
    }

    /// Verifies the ledger, its proofs and its documents. Figures of a damaged history would be worthless.
    pub(crate) async fn verify(&self) -> anyhow::Result<()> {
        let verified = self.run(&["verify", "--json"]).await;
        verified.context("`verify` found a damaged history, so no figure is printed")?;
        Ok(())
    }
}

/// The cost of a finished command.
pub(crate) struct Finished {
    pub(crate) seconds: f64,
    pub(crate) cpu: f64,
    pub(crate) peak: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_replaced_and_nothing_else() {
        for (url, other) in [
            (
                "postgres://a:b@h:1/old?sslmode=require",
                "postgres://a:b@h:1/new?sslmode=require",
            ),
            ("postgresql://h", "postgresql://h/new"),
            ("postgres://h/", "postgres://h/new"),
        ] {
            assert_eq!(with_database(url, "new"), other);
        }
    }
}
