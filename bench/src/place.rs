//! The service that is measured: a process of its own on a place of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use ledger::store::EventStore;
use ledger::store::postgres::PostgresStore;
use ledger::store::sqlite::SqliteStore;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::Settings;
use crate::http::Connection;

/// How long a service may take to start, stop or catch up before a measurement is given up.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks at a process that is measured.
const LOOK: Duration = Duration::from_millis(20);
/// Of `/proc/PID/stat` on Linux, whatever the kernel's own rate is.
const TICKS: f64 = 100.0;

/// Where one service keeps its data.
pub(crate) struct Place {
    folder: TempDir,
    program: PathBuf,
    secret: String,
    server: Option<PgConnectOptions>,
    database: String,
    pub(crate) database_url: Option<String>,
    nats_url: Option<String>,
}

/// A new connection to a database server, to make and drop databases with.
async fn connect(server: &PgConnectOptions) -> anyhow::Result<PgConnection> {
    let connection = PgConnection::connect_with(server).await;
    connection.context("cannot connect to the server of DATABASE_URL")
}

/// The same URL with another database.
fn with_database(url: &str, database: &str) -> String {
    let (address, parameters) = match url.split_once('?') {
        Some((address, parameters)) => (address, format!("?{parameters}")),
        None => (url, String::new()),
    };
    let (scheme, rest) = address.split_once("://").unwrap_or(("postgres", address));
    let host = rest.split_once('/').map_or(rest, |(host, _)| host);
    format!("{scheme}://{host}/{database}{parameters}")
}

impl Place {
    /// Lends a new place for a measurement. It is gone afterwards, whatever came of that, also when the measurement is
    /// to stop.
    pub(crate) async fn lend<T>(
        settings: &Settings,
        measure: impl AsyncFnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut place = Self::new(settings).await?;
        let measured = tokio::select! {
            biased;
            () = settings.stop.cancelled() => Err(anyhow!("stopped")),
            measured = measure(&mut place) => measured,
        };
        let measured = measured.map_err(|error| anyhow!("{error:#}{}", place.complaints()));
        let closed = place.close().await;
        // What went wrong first says more.
        let measured = measured?;
        closed?;
        Ok(measured)
    }

    /// A new folder and, on PostgreSQL, a new database.
    async fn new(settings: &Settings) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&settings.data_dir)
            .with_context(|| format!("cannot make {}", settings.data_dir.display()))?;
        let folder = TempDir::with_prefix_in("bench-", &settings.data_dir)
            .with_context(|| format!("cannot write to {}", settings.data_dir.display()))?;
        let database = format!(
            "profile_ledger_bench_{}",
            hex::encode(settings.randomness.bytes::<6>())
        );
        let server = match &settings.database_url {
            Some(url) => Some(PgConnectOptions::from_str(url).context("DATABASE_URL is no URL")?),
            None => None,
        };
        let mut database_url = None;
        if let Some(server) = &server {
            let statement = sqlx::AssertSqlSafe(format!("CREATE DATABASE {database}"));
            sqlx::raw_sql(statement)
                .execute(&mut connect(server).await?)
                .await
                .context("cannot make a database: measuring needs the right CREATEDB")?;
            let url = settings.database_url.as_deref().unwrap_or_default();
            database_url = Some(with_database(url, &database));
        }
        Ok(Self {
            folder,
            program: std::env::current_exe().context("this program has no path")?,
            secret: hex::encode(settings.randomness.bytes::<16>()),
            server,
            database,
            database_url,
            nats_url: None,
        })
    }

    /// Drops the database; the folder goes with the place.
    async fn close(self) -> anyhow::Result<()> {
        if let Some(server) = &self.server {
            let statement = format!("DROP DATABASE {} WITH (FORCE)", self.database);
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
                .execute(&mut connect(server).await?)
                .await
                .with_context(|| format!("the database {} is left over", self.database))?;
        }
        Ok(())
    }

    /// From the next start on, the service publishes there, or nowhere.
    pub(crate) fn publish_to(&mut self, nats_url: Option<&str>) {
        self.nats_url = nats_url.map(ToOwned::to_owned);
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The file of the ledger, where it is one.
    pub(crate) fn ledger_file(&self) -> PathBuf {
        self.path("data").join("ledger.db")
    }

    /// Opens the ledger, which must be there, while no service does.
    pub(crate) async fn store(&self) -> anyhow::Result<Arc<dyn EventStore>> {
        Ok(match &self.database_url {
            Some(url) => Arc::new(PostgresStore::open(url).await?),
            None => Arc::new(SqliteStore::open(&self.ledger_file()).await?),
        })
    }

    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    /// This program with the place as its configuration and nothing else of ours.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        let ours = [
            "READ_MODEL_URL",
            "PHOTO_STORE",
            "PUBLIC_URL",
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

    /// Starts the whole service and waits until it says where it is.
    pub(crate) async fn start_unready(&self) -> anyhow::Result<Service> {
        Service::start(&mut self.command(), &self.path("log")).await
    }

    /// Runs a command of the program to its end, which must be a good one.
    pub(crate) async fn run(&self, arguments: &[&str]) -> anyhow::Result<Finished> {
        let log = log_file(&self.path("log"))?;
        let began = Instant::now();
        let child = self
            .command()
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("this program cannot be started")?;
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

    /// What the service complained of last, each on a line of its own.
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

    /// Makes sure that the ledger, its proofs and its documents are what they should be: a figure of anything else
    /// is worth nothing.
    pub(crate) async fn verify(&self) -> anyhow::Result<()> {
        let verified = self.run(&["verify", "--json"]).await;
        verified.context("the history is not clean, so nothing was measured")?;
        Ok(())
    }
}

fn log_file(path: &Path) -> anyhow::Result<std::fs::File> {
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path);
    file.with_context(|| format!("cannot write to {}", path.display()))
}

/// A command that ran to its end.
pub(crate) struct Finished {
    pub(crate) seconds: f64,
    pub(crate) cpu: f64,
    pub(crate) peak: u64,
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Seconds of CPU time.
    pub(crate) cpu: f64,
    /// The most memory it has had at once since its start, or since that was forgotten, in bytes.
    pub(crate) peak: u64,
    /// The memory it has now, in bytes.
    pub(crate) resident: u64,
}

impl Usage {
    pub(crate) fn of(process: &str) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name in parentheses may hold anything.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
        let mut ticks = || fields.next()?.parse::<f64>().ok();
        let cpu = (ticks()? + ticks()?) / TICKS;
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let kibibytes = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        Some(Self {
            cpu,
            peak: kibibytes("VmHWM:")? * 1024,
            resident: kibibytes("VmRSS:")? * 1024,
        })
    }

    /// The most memory a process has had counts from now on (proc(5), `clear_refs`). Where the system does not allow
    /// that, it still counts from its start.
    pub(crate) fn forget_peak_of(process: &str) {
        let _ = std::fs::write(format!("/proc/{process}/clear_refs"), "5");
    }

    /// This process.
    pub(crate) fn own() -> Self {
        Self::of("self").unwrap_or_default()
    }
}

/// Looks at a process until it ends; what it had used when it was last seen.
async fn watch(process: Option<u32>) -> Usage {
    let mut usage = Usage::default();
    let Some(process) = process else {
        return usage;
    };
    while let Some(seen) = Usage::of(&process.to_string()) {
        usage = seen;
        tokio::time::sleep(LOOK).await;
    }
    usage
}

/// A running process that answers over HTTP.
pub(crate) struct Service {
    process: Child,
    /// `127.0.0.1:port`.
    pub(crate) address: String,
    began: Instant,
    /// From its start until it said where it is, in seconds.
    pub(crate) greeted: f64,
    /// From its start until it was ready, in seconds.
    pub(crate) ready: f64,
}

impl Service {
    pub(crate) async fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(log_file(log)?)
            .spawn()
            .context("this program cannot be started")?;
        let stdout = process.stdout.take().context("no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let greeting = async {
            while let Some(line) = lines.next_line().await? {
                if let Some((_, rest)) = line.split_once("is running on http://") {
                    let address = rest.split_whitespace().next().unwrap_or_default();
                    return Ok(address.trim_end_matches('.').to_owned());
                }
            }
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let last = text.lines().last().unwrap_or_default().to_owned();
            bail!("a service ended before it was running: {last}")
        };
        let address = tokio::time::timeout(PATIENCE, greeting)
            .await
            .context("a service does not start")??;
        Ok(Self {
            process,
            address,
            began,
            greeted: began.elapsed().as_secs_f64(),
            ready: 0.0,
        })
    }

    /// Waits until it has nothing left to catch up with.
    async fn await_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut connection = Connection::open(&self.address).await?;
        loop {
            let answer = connection.get("/readyz", "").await?;
            if answer.status == 200 {
                self.ready = self.began.elapsed().as_secs_f64();
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "a service does not become ready: {}",
                    String::from_utf8_lossy(&answer.body)
                )
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until documents are the fold up to a position.
    pub(crate) async fn await_position(
        &self,
        position: u64,
        path: &str,
        token: &str,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut connection = Connection::open(&self.address).await?;
        let path = format!("{path}?minPosition={position}");
        while connection.get(&path, token).await?.status != 200 {
            if Instant::now() > deadline {
                bail!("documents do not reach position {position}")
            }
        }
        Ok(())
    }

    pub(crate) fn forget_peak(&self) {
        if let Some(process) = self.process.id() {
            Usage::forget_peak_of(&process.to_string());
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        let process = self.process.id().unwrap_or_default();
        Usage::of(&process.to_string()).unwrap_or_default()
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(process) = self.process.id() {
            let status = Command::new("kill")
                .arg(process.to_string())
                .status()
                .await
                .context("cannot run kill")?;
            if !status.success() {
                bail!("a service cannot be stopped")
            }
        }
        tokio::time::timeout(PATIENCE, self.process.wait())
            .await
            .context("a service does not stop")??;
        Ok(())
    }
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

    #[test]
    fn a_process_that_lives_uses_memory_and_one_that_does_not_is_nothing() {
        assert!(Usage::own().resident > 0);
        assert!(Usage::of("0").is_none());
    }
}
