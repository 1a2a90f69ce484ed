//! `openapi`: prints the description of the whole API, without a service.

use std::io::Write as _;
use std::process::ExitCode;

use http_kit::text::Language;

use super::argument::language;
use crate::openapi;
use crate::roles::Roles;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The language of the descriptions: en or tr
    #[arg(long, value_name = "LANGUAGE", default_value = "en", value_parser = language)]
    lang: Language,
}

/// Prints the description of a process with all roles.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let document = openapi::document(Roles::ALL, args.lang, "/");
    let mut printed = serde_json::to_string_pretty(&document)?;
    printed.push('\n');
    std::io::stdout().write_all(printed.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
