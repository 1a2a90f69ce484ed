//! `verify`: compares history with its hashes, its signatures, the user documents and the stream.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use events::Position;
use ledger::merkle::note::{Checkpoint, PublicKey};
use ledger::merkle::verify::{Fault, Verifier};
use ledger::store;
use ledger::stream::Connection;
use projector::read_model;
use serde::Serialize;

use super::terminal::counted;
use crate::config::Config;
use crate::parts;

mod claims;
mod documents;
mod export;
mod log;
mod stream;

/// Events that are read at once.
const PAGE: usize = 2_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Verify this export instead (NDJSON, all events from position 1 on); needs only --checkpoint and --public-key
    #[arg(long, value_name = "FILE", requires_all = ["checkpoint", "public_key"])]
    export: Option<PathBuf>,
    /// A checkpoint that you stored elsewhere, as GET /api/v1/log/checkpoint returned it
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// The public key of the log, from a source that you trust; by default the key that is stored beside the log
    #[arg(long, value_name = "KEY", value_parser = PublicKey::parse)]
    public_key: Option<PublicKey>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The result, as far as the verification went.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    events: Position,
    root: String,
    checkpoints: u64,
    /// The last position that a checkpoint confirms.
    confirmed: Position,
    #[serde(skip_serializing_if = "Option::is_none")]
    documents: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parked_users: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<u64>,
    /// The first fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<Wrong>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Wrong {
    first_position: Position,
    last_position: Position,
    message: String,
}

/// Verifies and prints the result. The exit code is 1 if something is wrong.
pub(crate) async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    let looked = match &args.export {
        Some(file) => export::verify(file, args, &mut report),
        None => online(config, args, &mut report).await,
    };
    // A fault is a result. Any other error prevented the verification.
    let fault = match looked.map_err(anyhow::Error::downcast::<Fault>) {
        Ok(()) => None,
        Err(Ok(fault)) => Some(fault),
        Err(Err(error)) if is_damage(&error) => {
            // For example the head row: it has no position, and it concerns every event.
            let all = report.events.max(1);
            Some(Fault::within(1, all, format!("{error:#}")))
        }
        Err(Err(error)) => return Err(error),
    };
    report.fault = fault.as_ref().map(|fault| Wrong {
        first_position: fault.from,
        last_position: fault.to,
        message: fault.what.clone(),
    });
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        print(&mut out, &report, fault.as_ref())?;
    }
    Ok(if fault.is_some() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Whether stored data has a form that this program never writes.
fn is_damage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(store::Error::Damaged(_)))
            || matches!(cause.downcast_ref(), Some(read_model::Error::Damaged(_)))
    })
}

fn print(
    out: &mut impl std::io::Write,
    report: &Report,
    fault: Option<&Fault>,
) -> std::io::Result<()> {
    let events = counted(report.events, "event", "events");
    writeln!(out, "{events}, root {}", report.root)?;
    let checkpoints = counted(report.checkpoints, "checkpoint", "checkpoints");
    let confirmed = counted(report.confirmed, "event", "events");
    writeln!(out, "{checkpoints}, the last over {confirmed}")?;
    if let Some(documents) = report.documents {
        let documents = counted(documents, "document", "documents");
        let parked = counted(report.parked_users.unwrap_or_default(), "user", "users");
        writeln!(out, "{documents}, {parked} parked")?;
    }
    if let Some(messages) = report.messages {
        let messages = counted(messages, "message", "messages");
        writeln!(out, "{messages} in the stream")?;
    }
    match fault {
        None if report.confirmed < report.events => writeln!(
            out,
            "Nothing is wrong. Events after position {} are not signed yet.",
            report.confirmed
        ),
        None => writeln!(out, "Nothing is wrong."),
        Some(fault) => writeln!(out, "WRONG at {fault}."),
    }
}

async fn online(config: &Config, args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let history = parts::history(config).await?;
    let log_store = parts::log_to_read(config).await?;
    let mut verifier = Verifier::default();
    let looked = log::verify(&*history, &*log_store, args, &mut verifier, report).await;
    report.events = verifier.size();
    report.root = hex::encode(verifier.root());
    report.confirmed = verifier.confirmed();
    looked?;
    let read_model = parts::read_model_to_read(config).await?;
    documents::verify(&*history, &*read_model, &verifier, report).await?;
    if let Some(url) = &config.nats_url {
        let connection = Connection::open(url)
            .await
            .context("NATS_URL cannot be used")?;
        stream::verify(&*history, connection, report).await?;
    }
    Ok(())
}

/// Reads a checkpoint from a file.
fn checkpoint(path: &Path, key: &PublicKey) -> anyhow::Result<Checkpoint> {
    let note = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the checkpoint {}", path.display()))?;
    let checkpoint = key.open(&note);
    checkpoint.with_context(|| format!("the checkpoint {}", path.display()))
}
