//! A measured process.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::http::Connection;
use crate::usage::Usage;

/// The time that a service may take to start, stop or catch up. After it, the measurement fails.
const PATIENCE: Duration = Duration::from_secs(600);
/// A running process that answers over HTTP.
pub(crate) struct Service {
    process: Child,
    /// `127.0.0.1:port`.
    pub(crate) address: String,
    began: Instant,
    /// The seconds from its start until it printed its address.
    pub(crate) greeted: f64,
    /// The seconds from its start until it was ready.
    pub(crate) ready: f64,
}

impl Service {
    pub(crate) async fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(log_file(log)?)
            .spawn()
            .context("the program of the service cannot be started")?;
        let stdout = process
            .stdout
            .take()
            .context("the service has no standard output")?;
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
            bail!("the service ended before it was running: {last}")
        };
        let address = tokio::time::timeout(PATIENCE, greeting)
            .await
            .context("the service did not start in time")??;
        Ok(Self {
            process,
            address,
            began,
            greeted: began.elapsed().as_secs_f64(),
            ready: 0.0,
        })
    }

    /// Waits until it reports that it is ready.
    pub(crate) async fn await_ready(&mut self) -> anyhow::Result<()> {
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
                    "the service did not become ready in time: {}",
                    String::from_utf8_lossy(&answer.body)
                )
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until the documents include a position.
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
                bail!("the documents did not reach position {position} in time")
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
                bail!("the service cannot be stopped")
            }
        }
        tokio::time::timeout(PATIENCE, self.process.wait())
            .await
            .context("the service did not stop in time")??;
        Ok(())
    }
}

/// Opens a log file for appending.
pub(crate) fn log_file(path: &Path) -> anyhow::Result<std::fs::File> {
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path);
    file.with_context(|| format!("cannot write to {}", path.display()))
}
