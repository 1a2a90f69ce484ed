//! The command line.

use std::env::consts::EXE_SUFFIX;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use command_api::Randomness;
use tokio_util::sync::CancellationToken;

use crate::run::{Run, Settings};
use crate::{baseline, commands, growth, history, lag, photos, publish, reads};

/// Measures Profile Ledger beside bare baselines and prints tables in Markdown.
///
/// The service runs as separate processes on data of their own, which are removed afterwards.
#[derive(Debug, Parser)]
#[command(name = "profile-ledger-bench", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    measurement: Measurement,
    /// Folder in which services keep their data, each in a new folder; it should be on the disk to be measured
    #[arg(long, env = "DATA_DIR", default_value = "data", global = true)]
    data_dir: PathBuf,
    /// PostgreSQL server, `postgres://…`, on which services get a new database; without it, they use SQLite files
    #[arg(long, env = "DATABASE_URL", global = true, value_parser = postgres_url, hide_env_values = true)]
    database_url: Option<String>,
    /// NATS server with JetStream, `nats://…`, to which services publish; it must not have a ledger's stream
    #[arg(long, env = "NATS_URL", global = true, hide_env_values = true)]
    nats_url: Option<String>,
    /// Program of the service; without it, `profile-ledger` beside this program
    #[arg(long, value_name = "PATH", global = true)]
    service: Option<PathBuf>,
    /// How often everything is measured; medians are printed
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// For how many seconds each figure is measured, each time
    #[arg(long, global = true, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
}

#[derive(Debug, Subcommand)]
enum Measurement {
    /// Commands over HTTP, beside the same number of clients that each commit one row of 600 bytes at a time
    Commands(commands::Args),
    /// Reads over HTTP, beside a route that answers the same bytes from memory behind the same token check
    Reads(reads::Args),
    /// The time from a commit until it can be read, and with --nats-url until it is delivered
    Lag(lag::Args),
    /// Publishing a ledger to JetStream, beside a bare publisher of the same messages. Needs --nats-url
    Publish(publish::Args),
    /// Uploads of photos, beside decoding the same bytes
    Photos(photos::Args),
    /// Latency, memory and start-up as the ledger grows
    Growth(growth::Args),
    /// Rebuild, replay, export, verify and proofs, beside reading the same events one after the other
    History(history::Args),
    /// The baseline of `reads`
    #[command(hide = true)]
    Answer(baseline::AnswerArgs),
}

impl Cli {
    /// Measures, and prints tables. Ends with an error when `stop` is cancelled.
    pub(crate) async fn measure(
        self,
        randomness: Randomness,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let run = || {
            anyhow::Ok(Run {
                settings: Settings {
                    data_dir: self.data_dir,
                    database_url: self.database_url,
                    nats_url: self.nats_url,
                    service: service_program(self.service)?,
                    randomness,
                    stop: stop.clone(),
                },
                rounds: self.rounds,
                seconds: self.seconds,
            })
        };
        match self.measurement {
            Measurement::Commands(args) => commands::run(&run()?, &args).await,
            Measurement::Reads(args) => reads::run(&run()?, &args).await,
            Measurement::Lag(args) => lag::run(&run()?, &args).await,
            Measurement::Publish(args) => publish::run(&run()?, &args).await,
            Measurement::Photos(args) => photos::run(&run()?, &args).await,
            Measurement::Growth(args) => growth::run(&run()?, &args).await,
            Measurement::History(args) => history::run(&run()?, &args).await,
            Measurement::Answer(args) => baseline::answer(stop, &args).await,
        }
    }
}

fn postgres_url(text: &str) -> Result<String, String> {
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        Ok(text.to_owned())
    } else {
        Err("a postgres:// URL".to_owned())
    }
}

/// The program named by `--service`, or the one beside this program, where a build puts it.
fn service_program(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        anyhow::ensure!(
            named.is_file(),
            "--service {} is not a file",
            named.display()
        );
        // A name without a folder would be looked up in PATH.
        return std::path::absolute(&named).context("--service cannot be resolved");
    }
    let own = std::env::current_exe().context("the path of this program is unknown")?;
    let folder = own.parent().unwrap_or(Path::new("."));
    let program = folder.join(format!("profile-ledger{EXE_SUFFIX}"));
    anyhow::ensure!(
        program.is_file(),
        "the service's program is missing: there is no {}. Build it in the same profile (cargo build -p server) or name it \
         with --service PATH",
        program.display()
    );
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_missing_service_is_named_with_the_way_to_get_it() {
        let missing = service_program(Some("/nowhere/profile-ledger".into())).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "--service /nowhere/profile-ledger is not a file"
        );
        // Tests of the crate run in a folder where the service is never built.
        let missing = service_program(None).unwrap_err().to_string();
        assert!(missing.contains("cargo build -p server"), "{missing}");
    }
}
