//! `export`: writes the events of the ledger exactly as they are stored, to a file with a manifest or to standard
//! output.

mod draft;
mod lines;

use std::io::{BufWriter, IntoInnerError, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use events::{LeafHash, Position};
use ledger::feed::read_until;
use ledger::merkle::note::{Checkpoint, PublicKey};
use ledger::merkle::tree::Hasher;
use ledger::store::{Head, History};
use serde::Serialize;

use self::draft::Draft;
use super::find_user::NotFound;
use super::terminal::Output;
use crate::config::Config;
use crate::{lifecycle, parts};

/// Events in memory at once. A large ledger needs no more memory than a small one.
const BATCH: usize = 256;

const HELP: &str = "\
ndjson: one stored CloudEvents envelope per line, with exactly the bytes that were hashed.

csv (RFC 4180, UTF-8): position, version, type, schemaVersion, time, recordedTime, eventId, userId, actorType,
actor, platform, appVersion, device, language, timezone, requestId, and data, the payload as JSON. A cell that
starts like a formula, or with an apostrophe, gets an apostrophe in front.

With --out the file appears complete or not at all. FILE.manifest.json beside it describes it: file, format, count,
first and last position, storeId, and sha256 of the file. Nothing is overwritten. In a folder the range becomes the
file name. The manifest of an export from position 1 on also has the Merkle root over the events.

With --signed the export ends at the newest signed checkpoint, and two more files prove it without the ledger:
FILE.checkpoint, and FILE.hashes with the hash of each event. The manifest has the public key. To verify, use a copy
of the key from a source that you trust:
  profile-ledger verify --export FILE --checkpoint FILE.checkpoint --public-key KEY

Reads the ledger of --data-dir or --database-url, also while the service runs, and changes nothing. Ends at the event
that was the newest at the start. Compares each event with its hash.

Examples:
  profile-ledger export --out /backup
  profile-ledger export --from 1001 --out /backup        # what came since the last export
  profile-ledger export --signed --out /backup
  profile-ledger export --format csv --out ledger.csv --json
  profile-ledger export | zstd > ledger.ndjson.zst

Exit codes:
  0    done, also if the reader of the output ended early
  2    bad arguments, or the ledger cannot be read, or the file cannot be written; then there is no file
  3    no such position
  130  interrupted while writing a file, or 143 terminated, or 129 hung up; then there is no file";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The format
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    format: Format,
    /// The first position
    #[arg(long, value_name = "POSITION", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from: Position,
    /// The last position; by default that of the newest event
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(u64).range(1..))]
    until: Option<Position>,
    /// A new file, or a folder for it; by default standard output, which must not be a terminal
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// End at the newest signed checkpoint, and write the checkpoint and the hash of each event beside the file
    #[arg(long, requires = "out", conflicts_with_all = ["from", "until"])]
    signed: bool,
    /// Print the manifest instead of a sentence; needs --out
    #[arg(long, requires = "out")]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// One envelope per line
    Ndjson,
    /// One row per event, for spreadsheets
    Csv,
}

impl Format {
    fn extension(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }
}

/// Positions, both included; empty when `until` is the one before `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    from: Position,
    until: Position,
}

/// The description of a file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    file: String,
    format: Format,
    count: u64,
    /// `None` if there are no events, like `last`.
    first: Option<Position>,
    last: Option<Position>,
    /// The id of the ledger.
    store_id: String,
    /// SHA-256 of the file, in hexadecimal digits.
    sha256: String,
    /// The Merkle root over the events, in hexadecimal digits, if the file starts with position 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    /// The signature of the root: a signed note.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<String>,
    /// The key of the signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
}

/// A signed checkpoint with its key.
struct Signed {
    checkpoint: Checkpoint,
    note: String,
    key: PublicKey,
}

impl Signed {
    async fn newest(config: &Config) -> anyhow::Result<Self> {
        let log = parts::log_to_read(config).await?;
        let (Some(newest), Some(key)) = (log.checkpoint().await?, log.key().await?) else {
            bail!("nothing is signed yet: a projector signs a checkpoint about once a second")
        };
        let key = PublicKey::parse(&key)?;
        let checkpoint = key.open(&newest.note).context("the newest checkpoint")?;
        Ok(Self {
            checkpoint,
            note: newest.note,
            key,
        })
    }
}

pub(crate) async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let history = parts::history(config).await?;
    let head = history.head().await?;
    let signed = if args.signed {
        if args.format != Format::Ndjson {
            bail!("--signed needs the format ndjson, because the hashes are over its lines")
        }
        Some(Signed::newest(config).await?)
    } else {
        None
    };
    let range = match &signed {
        Some(signed) => Range {
            from: 1,
            until: signed.checkpoint.size,
        },
        None => range(args, head.position)?,
    };
    let mut stdout = Output::stdout();
    let Some(out) = &args.out else {
        if stdout.is_terminal() {
            bail!("events are not written to a terminal; use --out or a pipe")
        }
        write(&*history, range, args.format, &mut stdout, None).await?;
        stdout.flush()?;
        return Ok(ExitCode::SUCCESS);
    };
    let path = if out.is_dir() {
        let Range { from, until } = range;
        out.join(format!("ledger-{from}-{until}.{}", args.format.extension()))
    } else {
        out.clone()
    };
    let export = file(&*history, head, range, args.format, &path, signed);
    let manifest = tokio::select! {
        biased;
        code = lifecycle::interrupted() => {
            return Ok(ExitCode::from(code.context("signals cannot be received")?));
        }
        manifest = export => manifest.with_context(|| format!("cannot export to {}", path.display()))?,
    };
    if args.json {
        stdout.json(&manifest)?;
    } else {
        let path = path.display();
        match (manifest.first, manifest.last) {
            (Some(first), Some(last)) => {
                writeln!(stdout, "Events {first} to {last} are in {path}.")?;
            }
            _ => writeln!(stdout, "There are no events; {path} is empty.")?,
        }
    }
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn range(args: &Args, newest: Position) -> anyhow::Result<Range> {
    let until = args.until.unwrap_or(newest);
    if until > newest {
        let wanted = until;
        return Err(NotFound::Position { wanted, newest }.into());
    }
    if args.from > until && args.until.is_some() {
        bail!("--from must not be after --until")
    }
    // No event has come since the last export: the export is empty.
    if args.from > until + 1 {
        let wanted = args.from;
        return Err(NotFound::Position { wanted, newest }.into());
    }
    Ok(Range {
        from: args.from,
        until,
    })
}

/// Writes the file and its manifest. Both appear when both are complete.
async fn file(
    history: &dyn History,
    head: Head,
    range: Range,
    format: Format,
    path: &Path,
    signed: Option<Signed>,
) -> anyhow::Result<Manifest> {
    let name = path.file_name().context("no file name")?;
    let mut events = BufWriter::new(Draft::new(path)?);
    let mut manifest = beside(path, ".manifest.json")?;
    let mut proof = match &signed {
        Some(_) => Some((
            beside(path, ".checkpoint")?,
            BufWriter::new(beside(path, ".hashes")?),
        )),
        None => None,
    };
    let hashes = proof.as_mut().map(|(_, hashes)| hashes);
    let tree = write(history, range, format, &mut events, hashes).await?;
    if signed
        .as_ref()
        .is_some_and(|signed| signed.checkpoint.root != tree.root())
    {
        bail!("the events differ from the signed ones; run `profile-ledger verify` for details")
    }
    let events = events.into_inner().map_err(IntoInnerError::into_error)?;
    let count = range.until + 1 - range.from;
    let described = Manifest {
        file: name.to_string_lossy().into_owned(),
        format,
        count,
        first: (count > 0).then_some(range.from),
        last: (count > 0).then_some(range.until),
        store_id: head.store_id,
        sha256: events.sha256(),
        root: (range.from == 1).then(|| hex::encode(tree.root())),
        checkpoint: signed.as_ref().map(|signed| signed.note.clone()),
        public_key: signed.as_ref().map(|signed| signed.key.to_string()),
    };
    serde_json::to_writer_pretty(&mut manifest, &described)?;
    manifest.write_all(b"\n")?;
    let mut drafts = vec![events];
    if let (Some((mut checkpoint, hashes)), Some(signed)) = (proof, &signed) {
        checkpoint.write_all(signed.note.as_bytes())?;
        let hashes = hashes.into_inner().map_err(IntoInnerError::into_error)?;
        drafts.extend([checkpoint, hashes]);
    }
    drafts.push(manifest);
    draft::finish(drafts)?;
    Ok(described)
}

/// A file beside the export, with a longer name.
fn beside(path: &Path, ending: &str) -> anyhow::Result<Draft> {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    Draft::new(Path::new(&name))
}

/// Writes the events of a range and the hash of each. Returns the tree over the hashes.
async fn write(
    history: &dyn History,
    range: Range,
    format: Format,
    out: &mut impl Write,
    mut hashes: Option<&mut BufWriter<Draft>>,
) -> anyhow::Result<Hasher> {
    let mut tree = Hasher::default();
    out.write_all(&lines::heading(format))?;
    let mut last = range.from - 1;
    while last < range.until {
        let events = read_until(history, last, range.until, BATCH).await?;
        for event in &events {
            if LeafHash::of(&event.envelope) != event.leaf_hash {
                bail!(
                    "the event at position {} is not what was hashed",
                    event.position
                )
            }
            tree.push(event.leaf_hash.0);
            if let Some(hashes) = &mut hashes {
                hashes.write_all(&event.leaf_hash.0)?;
            }
        }
        out.write_all(&lines::of(format, &events)?)?;
        last += events.len() as u64;
    }
    Ok(tree)
}
