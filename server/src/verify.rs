//! `verify`: whether history is what was recorded, signed, folded and published.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use events::document::{Document, fold};
use events::feed::{Feed as _, StreamFeed};
use events::log::LogStore;
use events::log::note::{Checkpoint, PublicKey};
use events::log::tree::{Hash, Hasher, TILE, perfect};
use events::log::verify::{Fault, Verifier, open};
use events::message::structured;
use events::store::History;
use events::stream::Connection;
use events::{Position, StoredEvent, UserId, Version};
use projector::ReadModel;
use serde::Serialize;

use crate::config::{Config, VerifyArgs};
use crate::parts;

/// Events that are read at once.
const PAGE: usize = 2_000;
/// Users whose documents are compared at once.
const USERS: usize = 200;
/// Checkpoints that are read at once.
const CHECKPOINTS: usize = 1_000;
/// The longest line of an export.
const LONGEST: u64 = 1024 * 1024;

/// What was looked at, as far as it went.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    events: Position,
    root: String,
    checkpoints: u64,
    /// The last position that a checkpoint confirms.
    confirmed: Position,
    #[serde(skip_serializing_if = "Option::is_none")]
    documents: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parked_users: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<u64>,
    /// The first thing that is wrong.
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

/// Prints what was found. Exit code 1 when something is wrong.
pub(crate) async fn run(config: &Config, args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    let looked = match &args.export {
        Some(export) => offline(export, args, &mut report),
        None => online(config, args, &mut report).await,
    };
    // A fault is what was asked for; anything else kept us from looking.
    let fault = match looked.map_err(anyhow::Error::downcast::<Fault>) {
        Ok(()) => None,
        Err(Ok(fault)) => Some(fault),
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

fn print(
    out: &mut impl std::io::Write,
    report: &Report,
    fault: Option<&Fault>,
) -> std::io::Result<()> {
    writeln!(out, "{} events, root {}", report.events, report.root)?;
    writeln!(
        out,
        "{} checkpoints, the last over {} events",
        report.checkpoints, report.confirmed
    )?;
    if let Some(documents) = report.documents {
        let parked = report.parked_users.unwrap_or_default();
        writeln!(out, "{documents} documents, {parked} users parked")?;
    }
    if let Some(messages) = report.messages {
        writeln!(out, "{messages} messages in the stream")?;
    }
    match fault {
        None => writeln!(out, "Nothing is wrong."),
        Some(fault) => writeln!(out, "WRONG at {fault}."),
    }
}

async fn online(config: &Config, args: &VerifyArgs, report: &mut Report) -> anyhow::Result<()> {
    let history = parts::history(config).await?;
    let log = parts::log_to_read(config).await?;
    let key = match &args.public_key {
        Some(key) => Some(key.clone()),
        None => log
            .key()
            .await?
            .map(|key| PublicKey::parse(&key))
            .transpose()?,
    };
    let mut verifier = Verifier::default();
    let looked = ledger(&*history, &*log, key.as_ref(), args, &mut verifier, report).await;
    report.events = verifier.size();
    report.root = hex::encode(verifier.root());
    report.confirmed = verifier.confirmed();
    looked?;
    let read_model = parts::read_model_to_read(config).await?;
    documents(&*history, &*read_model, &verifier, report).await?;
    if let Some(url) = &config.nats_url {
        let connection = Connection::open(url)
            .await
            .context("NATS_URL cannot be used")?;
        stream(&*history, connection, report).await?;
    }
    Ok(())
}

/// The events one by one, with every hash that is kept and every checkpoint that was signed.
async fn ledger(
    history: &dyn History,
    log: &dyn LogStore,
    key: Option<&PublicKey>,
    args: &VerifyArgs,
    verifier: &mut Verifier,
    report: &mut Report,
) -> anyhow::Result<()> {
    let head = history.head().await?.position;
    let mut checkpoints = Checkpoints::default();
    checkpoints.trust(args, key)?;
    let mut levels = Levels::default();
    let mut page = history.read(0, PAGE).await?;
    while !page.is_empty() {
        let after = page.last().map_or(0, |event| event.position);
        let (next, checked) = tokio::join!(history.read(after, PAGE), async {
            for event in page.iter().filter(|event| event.position <= head) {
                verifier.event(event)?;
                levels.push(log, event.leaf_hash.0).await?;
                if let Some(key) = key {
                    report.checkpoints += checkpoints.confirm(log, key, verifier).await?;
                }
            }
            anyhow::Ok(())
        });
        checked?;
        page = next?;
    }
    if verifier.size() < head {
        return Err(Fault::at(
            verifier.size() + 1,
            "the event is missing: the head is beyond it",
        )
        .into());
    }
    // What was signed must be there still. Newer ones are of events that came meanwhile.
    let newest = log.checkpoint().await?;
    let head = history.head().await?.position;
    if let Some(newest) = newest.filter(|newest| newest.size > head) {
        let what = format!("the event is missing: {} were signed", newest.size);
        return Err(Fault::at(head + 1, what).into());
    }
    if let Some(missing) = &checkpoints.trusted {
        let what = format!(
            "the event is missing: the checkpoint is over {} events",
            missing.size
        );
        return Err(Fault::at(verifier.size() + 1, what).into());
    }
    Ok(())
}

/// Inner hashes as they come out, compared with those that are kept.
#[derive(Default)]
struct Levels {
    /// Of each level, the hashes since the last full tile, and how many tiles were full.
    tiles: Vec<(Vec<Hash>, u64)>,
}

impl Levels {
    async fn push(&mut self, log: &dyn LogStore, leaf: Hash) -> anyhow::Result<()> {
        let mut hash = leaf;
        for level in 0.. {
            if self.tiles.len() <= level {
                self.tiles.push((Vec::new(), 0));
            }
            let (tile, full) = &mut self.tiles[level];
            tile.push(hash);
            if (tile.len() as u64) < TILE {
                break;
            }
            hash = perfect(tile);
            tile.clear();
            let (index, above) = (*full, u32::try_from(level + 1)?);
            *full += 1;
            let kept = log.hashes(above, index, 1).await?;
            // What was not worked out yet is worked out by the service.
            if kept.first().is_some_and(|kept| *kept != hash) {
                let leaves = TILE.pow(above);
                return Err(Fault::within(
                    index * leaves + 1,
                    (index + 1) * leaves,
                    "the events are not those of the kept hash over them",
                )
                .into());
            }
        }
        Ok(())
    }
}

/// Checkpoints in the order of their sizes.
#[derive(Default)]
struct Checkpoints {
    kept: VecDeque<(u64, String)>,
    last: u64,
    is_at_end: bool,
    /// One that was kept outside.
    trusted: Option<Checkpoint>,
}

impl Checkpoints {
    /// A checkpoint that somebody kept outside.
    fn trust(&mut self, args: &VerifyArgs, key: Option<&PublicKey>) -> anyhow::Result<()> {
        let Some(path) = &args.checkpoint else {
            return Ok(());
        };
        let key =
            key.context("there is no key to open the checkpoint with: give it with --public-key")?;
        self.trusted = Some(checkpoint(path, key)?);
        Ok(())
    }

    /// Compares every checkpoint over just the events so far; how many those were.
    async fn confirm(
        &mut self,
        log: &dyn LogStore,
        key: &PublicKey,
        verifier: &mut Verifier,
    ) -> anyhow::Result<u64> {
        let size = verifier.size();
        let mut confirmed = 0;
        if let Some(trusted) = self.trusted.take_if(|trusted| trusted.size == size) {
            verifier.confirm(&trusted)?;
            confirmed += 1;
        }
        if self.kept.is_empty() && !self.is_at_end && self.last < size {
            let page = log.checkpoints(size - 1, CHECKPOINTS).await?;
            self.is_at_end = page.is_empty();
            self.last = page.last().map_or(size, |last| last.size);
            self.kept = page
                .into_iter()
                .map(|signed| (signed.size, signed.note))
                .collect();
        }
        if let Some((_, note)) = self.kept.pop_front_if(|(at, _)| *at == size) {
            verifier.confirm(&open(key, size, &note)?)?;
            confirmed += 1;
        }
        Ok(confirmed)
    }
}

fn checkpoint(path: &Path, key: &PublicKey) -> anyhow::Result<Checkpoint> {
    let note = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the checkpoint {}", path.display()))?;
    let checkpoint = key.open(&note);
    checkpoint.with_context(|| format!("the checkpoint {}", path.display()))
}

/// Each document against the fold of its user's events, up to its own version.
async fn documents(
    history: &dyn History,
    read_model: &dyn ReadModel,
    verifier: &Verifier,
    report: &mut Report,
) -> anyhow::Result<()> {
    let parked = read_model.parked().await?;
    let applied = read_model.checkpoint().await?;
    report.parked_users = Some(parked.len());
    let mut users: Vec<(UserId, Version)> = verifier
        .users()
        .filter(|(user, _)| !parked.iter().any(|parked| parked.user_id == *user))
        .collect();
    users.sort_unstable();
    let mut compared = 0;
    for chunk in users.chunks(USERS) {
        let ids: Vec<UserId> = chunk.iter().map(|(user, _)| *user).collect();
        let stored = read_model.documents(&ids).await?;
        let stored: HashMap<UserId, &Document> = stored
            .iter()
            .map(|document| (document.user_id, document))
            .collect();
        let mut folded: HashMap<UserId, Document> = HashMap::new();
        let mut after = 0;
        loop {
            let page = history.read_users(&ids, after, PAGE).await?;
            for event in &page {
                after = event.position;
                let wanted = stored.get(&event.user_id);
                if wanted.is_none() && event.position <= applied {
                    let what = format!("the document of user {} is missing", event.user_id);
                    return Err(Fault::at(event.position, what).into());
                }
                if wanted.is_none_or(|document| event.version > document.version) {
                    if event.position <= applied {
                        let what = format!("the document of user {} is older", event.user_id);
                        return Err(Fault::at(event.position, what).into());
                    }
                    continue;
                }
                let recorded = event
                    .decode()
                    .map_err(|error| Fault::at(event.position, error.to_string()))?;
                let before = folded.remove(&event.user_id);
                let document = fold(before, &recorded)
                    .map_err(|error| Fault::at(event.position, error.to_string()))?;
                folded.insert(event.user_id, document);
            }
            if page.len() < PAGE {
                break;
            }
        }
        let mut differing: Vec<&Document> = stored
            .values()
            .copied()
            .filter(|document| folded.get(&document.user_id) != Some(*document))
            .collect();
        differing.sort_unstable_by_key(|document| document.position);
        if let Some(document) = differing.first() {
            let what = format!(
                "the document of user {} is not the fold of its events",
                document.user_id
            );
            return Err(Fault::at(document.position, what).into());
        }
        compared += stored.len();
    }
    report.documents = Some(compared);
    Ok(())
}

/// The stream against the ledger, message by message.
async fn stream(
    history: &dyn History,
    connection: Connection,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (first, last) = connection.holds().await?;
    let head = history.head().await?.position;
    if last > head {
        return Err(Fault::at(head + 1, "the stream holds more than the ledger").into());
    }
    let mut position = first.saturating_sub(1);
    let mut messages = 0;
    let mut feed = StreamFeed::new(connection, Some(position), PAGE);
    while position < last {
        let published = match feed.next().await {
            Ok(published) => published,
            Err(events::feed::Error::Gap { expected, .. }) => {
                return Err(Fault::at(expected, "the message is missing in the stream").into());
            }
            Err(events::feed::Error::Foreign(at)) => {
                return Err(Fault::at(at, "the message in the stream is not the event").into());
            }
            Err(error) => return Err(error.into()),
        };
        let recorded = history.read(position, published.len()).await?;
        for (message, event) in published.iter().zip(&recorded) {
            if message != event {
                return Err(Fault::at(
                    event.position,
                    "the message in the stream is not the event",
                )
                .into());
            }
            position = event.position;
            messages += 1;
        }
    }
    report.messages = Some(messages);
    Ok(())
}

/// An export against a checkpoint, with nothing but the public key.
fn offline(export: &Path, args: &VerifyArgs, report: &mut Report) -> anyhow::Result<()> {
    let (Some(key), Some(path)) = (&args.public_key, &args.checkpoint) else {
        bail!("an export is verified with --checkpoint FILE and --public-key KEY");
    };
    let signed = checkpoint(path, key)?;
    let describe = || format!("cannot read the export {}", export.display());
    let file = std::fs::File::open(export).with_context(describe)?;
    let mut hashes = Hashes::beside(export, &signed)?;
    let mut verifier = Verifier::default();
    let mut lines = BufReader::new(file);
    let mut line = Vec::new();
    let looked = loop {
        line.clear();
        let read = std::io::Read::take(&mut lines, LONGEST).read_until(b'\n', &mut line);
        if read.with_context(describe)? == 0 || verifier.size() == signed.size {
            break Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let position = verifier.size() + 1;
        if let Err(fault) =
            exported(&line, position, &mut hashes).and_then(|event| verifier.event(&event))
        {
            break Err(fault);
        }
    };
    report.events = verifier.size();
    report.root = hex::encode(verifier.root());
    looked?;
    if verifier.size() < signed.size {
        let what = format!("the event is missing: {} were signed", signed.size);
        return Err(Fault::at(verifier.size() + 1, what).into());
    }
    verifier.confirm(&signed)?;
    report.checkpoints = 1;
    report.confirmed = verifier.confirmed();
    if !line.is_empty() {
        return Err(Fault::at(signed.size + 1, "the event was not signed").into());
    }
    Ok(())
}

fn exported(line: &[u8], position: Position, hashes: &mut Hashes) -> Result<StoredEvent, Fault> {
    let hash = events::LeafHash::of(line);
    if hashes.next().is_some_and(|signed| signed != hash.0) {
        return Err(Fault::at(
            position,
            "the envelope is not the one that was signed",
        ));
    }
    structured(line.to_vec().into()).map_err(|error| Fault::at(position, error.to_string()))
}

/// The hashes that may come with an export. They say which event is wrong, where the root alone says that one is.
struct Hashes(Option<std::vec::IntoIter<Hash>>);

impl Hashes {
    /// Reads `<export>.hashes`, if it is there and itself is what was signed.
    fn beside(export: &Path, signed: &Checkpoint) -> anyhow::Result<Self> {
        let mut path = export.as_os_str().to_owned();
        path.push(".hashes");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self(None)),
            Err(error) => {
                let path = Path::new(&path).display();
                return Err(error).with_context(|| format!("cannot read {path}"));
            }
        };
        let (hashes, rest) = bytes.as_chunks::<32>();
        let mut hasher = Hasher::default();
        for hash in hashes {
            hasher.push(*hash);
        }
        if !rest.is_empty() || hasher.size() != signed.size || hasher.root() != signed.root {
            bail!(
                "{} holds other hashes than those that were signed; remove it to verify the export without it",
                Path::new(&path).display()
            );
        }
        let hashes: Vec<Hash> = hashes.to_vec();
        Ok(Self(Some(hashes.into_iter())))
    }

    fn next(&mut self) -> Option<Hash> {
        self.0.as_mut()?.next()
    }
}
