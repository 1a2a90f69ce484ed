//! The command line.

use clap::Parser;

use crate::commands::Command;
use crate::config::Config;

/// User profiles kept as an append-only ledger of events.
///
/// Without a command, runs the whole service in this process, on SQLite and local files in the data directory.
#[derive(Debug, Parser)]
#[command(name = "profile-ledger", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten, next_help_heading = "Settings of every command")]
    pub(crate) config: Config,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}
