#![doc = include_str!("../README.md")]

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args as Arguments, Subcommand};
use command_api::Randomness;
use http_kit::clock::Clock;
use tokio_util::sync::CancellationToken;

mod baseline;
mod commands;
mod growth;
mod history;
mod http;
mod lag;
mod load;
mod photos;
mod place;
mod publish;
mod reads;
mod report;
mod users;

/// What of the service's configuration matters here.
#[derive(Clone)]
pub struct Settings {
    /// Services put their data into a new folder in this one, which is on the disk that counts.
    pub data_dir: PathBuf,
    /// Services use a new database on this server; without it, files in the folder.
    pub database_url: Option<String>,
    /// Services publish to this server, which must have no stream of a ledger.
    pub nats_url: Option<String>,
    /// Names what is made for a measurement, its secrets and its events.
    pub randomness: Randomness,
    /// Cancelled when the measurement is to stop: it then ends with an error and leaves nothing behind.
    pub stop: CancellationToken,
}

/// `profile-ledger bench`.
#[derive(Debug, Clone, Arguments)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// How often everything is measured; medians are printed
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// For how many seconds each figure is measured, each time
    #[arg(long, global = true, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// Commands over HTTP, beside the same number of clients that each commit one row of 600 bytes at a time
    Commands(commands::Args),
    /// Reads over HTTP, beside a route that answers the same bytes from memory behind the same token check
    Reads(reads::Args),
    /// From a commit until it can be read, and with --nats-url until it is delivered
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

/// Measures, and prints tables in Markdown.
pub async fn run(settings: Settings, args: Args) -> anyhow::Result<()> {
    let run = Run {
        settings: Arc::new(settings),
        rounds: args.rounds,
        seconds: args.seconds,
    };
    match args.what {
        What::Commands(args) => commands::run(&run, &args).await,
        What::Reads(args) => reads::run(&run, &args).await,
        What::Lag(args) => lag::run(&run, &args).await,
        What::Publish(args) => publish::run(&run, &args).await,
        What::Photos(args) => photos::run(&run, &args).await,
        What::Growth(args) => growth::run(&run, &args).await,
        What::History(args) => history::run(&run, &args).await,
        What::Answer(args) => baseline::answer(&run, &args).await,
    }
}

/// What every measurement is told.
struct Run {
    settings: Arc<Settings>,
    rounds: u32,
    seconds: u32,
}

impl Run {
    fn time(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.seconds.into())
    }

    /// Where services keep their data in this run.
    fn storage(&self) -> &'static str {
        if self.settings.database_url.is_some() {
            "PostgreSQL"
        } else {
            "embedded"
        }
    }
}

/// The clock by which tokens are made.
fn clock() -> Clock {
    Clock::system()
}
