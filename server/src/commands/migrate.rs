//! `migrate`: brings the databases up to date.

use std::process::ExitCode;

use crate::config::Config;
use crate::parts;

/// Brings every database up to date and stops.
pub(crate) async fn run(config: &Config) -> anyhow::Result<ExitCode> {
    parts::migrate(config).await?;
    println!("The databases are up to date.");
    Ok(ExitCode::SUCCESS)
}
