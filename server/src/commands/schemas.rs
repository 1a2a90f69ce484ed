//! `schemas`: writes the JSON Schemas of events, without a service.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use events::schema;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder for the files TYPE/VERSION.json; existing files are replaced
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// Writes every schema to a file named for its event type and version.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    for published in schema::all() {
        let folder = args.to.join(published.name);
        let file = folder.join(format!("{}.json", published.version));
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&file, published.text()))
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
