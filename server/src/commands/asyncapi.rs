//! `asyncapi`: prints the AsyncAPI document, without a service.

use std::io::Write as _;
use std::process::ExitCode;

use http_kit::text::Language;

use super::argument::language;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The language of the descriptions: en or tr
    #[arg(long, value_name = "LANGUAGE", default_value = "en", value_parser = language)]
    lang: Language,
}

/// Prints the AsyncAPI document.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let document = query_api::asyncapi::document(args.lang);
    std::io::stdout().write_all(document.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
