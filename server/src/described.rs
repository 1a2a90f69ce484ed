//! `asyncapi` and `schemas`: what is published about events, without a service.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use events::schema;
use http_kit::text::Language;

use crate::config::{AsyncApiArgs, SchemasArgs, Tongue};

/// Prints the AsyncAPI document.
pub(crate) fn asyncapi(args: &AsyncApiArgs) -> anyhow::Result<ExitCode> {
    let language = match args.lang {
        Tongue::En => Language::En,
        Tongue::Tr => Language::Tr,
    };
    let document = query_api::asyncapi::document(language);
    std::io::stdout().write_all(document.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Writes every schema to a file named for its event type and version.
pub(crate) fn schemas(args: &SchemasArgs) -> anyhow::Result<ExitCode> {
    for published in schema::all() {
        let folder = args.to.join(published.name);
        let file = folder.join(format!("{}.json", published.version));
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&file, published.text()))
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
