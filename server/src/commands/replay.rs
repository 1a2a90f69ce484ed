//! `replay`: copies history to another system, as files or as messages, in constant memory.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::future::IntoFuture as _;
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use events::{Position, StoredEvent, UserId};
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use ledger::read_ahead::ReadAhead;
use ledger::store::History;
use ledger::stream::Connection;
use serde::Deserialize;
use serde_json::json;

use super::argument::{event_type, position};
use super::find_user::NotFound;
use super::progress::Progress;
use super::terminal::{Output, counted};
use crate::config::Config;
use crate::parts;

/// The size in bytes at which a segment ends.
const SEGMENT_BYTES: u64 = 256 * 1024 * 1024;
/// The longest last line.
const MAX_LINE: u64 = 16 * 1024 * 1024;
/// The most messages without an acknowledgement, and the most bytes of them.
const WINDOW: usize = 512;
const WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// The time between two reports of progress.
const PROGRESS: Duration = Duration::from_secs(2);
/// Events of one user that are read at once.
const PAGE: usize = 512;
/// The file that describes the history in a folder.
const MANIFEST: &str = "replay.json";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: To,
    /// The first position
    #[arg(long, value_name = "POSITION", default_value_t = 1, value_parser = position)]
    from: Position,
    /// The last position; by default the head
    #[arg(long, value_name = "POSITION", value_parser = position)]
    until: Option<Position>,
    /// Only events of this type; repeat the flag for several types
    #[arg(long = "type", value_name = "TYPE", value_parser = event_type)]
    types: Vec<String>,
    /// Only events of this user
    #[arg(long, value_name = "ID")]
    user: Option<UserId>,
    /// Events per file; a file also ends at 256 MiB
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    segment_events: u64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The target: exactly one of them.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct To {
    /// Folder for files with one CloudEvent in JSON per line, each named for its first position. A repeated command
    /// continues after the last file
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Subject on the NATS server of --nats-url; a JetStream stream there must accept it
    #[arg(long, value_name = "SUBJECT", value_parser = subject)]
    nats: Option<String>,
}

/// A subject for a copy. Only the relay publishes under `profiles.v1`.
fn subject(text: &str) -> Result<String, String> {
    let mut tokens = text.split('.');
    if !tokens.all(|token| {
        !token.is_empty()
            && token
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"*>".contains(&b))
    }) {
        return Err("a subject such as copy.profiles, without wildcards".to_owned());
    }
    if text.starts_with('$') || text.starts_with("_INBOX.") {
        return Err("a subject that is not the server's own".to_owned());
    }
    if format!("{text}.").starts_with("profiles.v1.") {
        return Err(
            "a subject outside profiles.v1, where the ledger itself is published".to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// Copies the chosen events, up to the present head.
pub(crate) async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let history = parts::history(config).await?;
    let head = history.head().await.context("cannot read the ledger")?;
    let until = range(args, head.position)?;
    let after = args.from - 1;
    let mut target = match (&args.target.to, &args.target.nats) {
        (Some(folder), _) => Target::Folder(Folder::open(folder, args, &head.store_id)?),
        (None, Some(subject)) => {
            let url = config.nats_url.as_deref();
            let url = url.context("--nats needs NATS_URL")?;
            let connection = Connection::open(url)
                .await
                .context("NATS_URL cannot be used")?;
            Target::Subject(Subject::new(connection, subject))
        }
        (None, None) => bail!("choose a target: --to DIR or --nats SUBJECT"),
    };
    let after = after.max(target.last());
    let progress = Progress::new(PROGRESS);
    progress.begin("replaying", until);
    let begun = tokio::time::Instant::now();
    let replayed = hand_over(history, args, after, until, &mut target, &progress).await;
    progress.finish();
    let events = replayed.with_context(|| target.where_it_stopped())?;
    let seconds = begun.elapsed().as_secs_f64();
    let until = until.max(after);
    let mut out = Output::stdout();
    if args.json {
        out.json(&json!({"events": events, "after": after, "until": until, "seconds": seconds}))?;
    } else {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = events as f64 / seconds.max(0.001);
        let events = counted(events, "event", "events");
        writeln!(
            out,
            "{events} after position {after} up to {until}, {rate:.0} events/s"
        )?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The last position to copy. A position that the ledger does not have is an error; an empty range is not.
fn range(args: &Args, newest: Position) -> anyhow::Result<Position> {
    let until = args.until.unwrap_or(newest);
    if args.until.is_some() && args.from > until {
        bail!("--from must not be after --until")
    }
    for wanted in [args.from - 1, until] {
        if wanted > newest {
            let wanted = wanted.max(args.from);
            return Err(NotFound::Position { wanted, newest }.into());
        }
    }
    Ok(until)
}

async fn hand_over(
    history: Arc<dyn History>,
    args: &Args,
    after: Position,
    until: Position,
    target: &mut Target,
    progress: &Progress,
) -> anyhow::Result<u64> {
    let types: HashSet<&str> = args.types.iter().map(String::as_str).collect();
    let mut source = match args.user {
        Some(user) => Source::User(history, user, 0),
        None => Source::All(ReadAhead::new(history, after, until)),
    };
    let mut count = 0;
    while let Some(events) = source.next().await.context("cannot read the ledger")? {
        let last = events.last().map(|event| event.position);
        for event in events {
            let is_wanted = event.position > after
                && event.position <= until
                && (types.is_empty() || types.contains(&*event.event_type));
            if is_wanted {
                target.take(&event).await?;
                count += 1;
            }
        }
        progress.at(last.unwrap_or_default().min(until));
    }
    target.finish().await?;
    Ok(count)
}

/// A source of events.
enum Source {
    All(ReadAhead),
    /// The events of one user after a version.
    User(Arc<dyn History>, UserId, u64),
}

impl Source {
    async fn next(&mut self) -> Result<Option<Vec<StoredEvent>>, ledger::feed::Error> {
        match self {
            Self::All(reading) => reading.next().await,
            Self::User(history, user, after) => {
                let events = history.read_user(user, *after, PAGE).await?;
                let last = events.last().map(|event| event.version);
                *after = last.unwrap_or(*after);
                Ok(last.map(|_| events))
            }
        }
    }
}

/// A target of events.
#[expect(clippy::large_enum_variant, reason = "there is only one")]
enum Target {
    Folder(Folder),
    Subject(Subject),
}

impl Target {
    /// The position of the last event that was copied before.
    fn last(&self) -> Position {
        match self {
            Self::Folder(folder) => folder.last,
            Self::Subject(_) => 0,
        }
    }

    async fn take(&mut self, event: &StoredEvent) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => folder.write(event),
            Self::Subject(subject) => subject.publish(event).await,
        }
    }

    async fn finish(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => folder.end_segment(),
            Self::Subject(subject) => {
                while subject.settle().await? {}
                Ok(())
            }
        }
    }

    fn where_it_stopped(&self) -> String {
        match self {
            Self::Folder(folder) => format!(
                "stopped after position {}, which is on disk; run the command again to continue",
                folder.last
            ),
            Self::Subject(subject) if subject.acknowledged > 0 => format!(
                "stopped; everything up to position {} is acknowledged: continue with --from {}",
                subject.acknowledged,
                subject.acknowledged + 1
            ),
            Self::Subject(_) => "stopped; nothing is acknowledged".to_owned(),
        }
    }
}

/// A folder of segments: files with one envelope per line, each named for the position of its first event. A file with
/// such a name is complete.
struct Folder {
    path: PathBuf,
    segment_events: u64,
    /// The position of the last event of the last complete segment.
    last: Position,
    segment: Option<Segment>,
    /// Locked while the folder is written.
    _lock: File,
}

struct Segment {
    file: BufWriter<File>,
    first: Position,
    last: Position,
    events: u64,
    bytes: u64,
}

impl Folder {
    fn open(path: &Path, args: &Args, ledger: &str) -> anyhow::Result<Self> {
        let describe = || format!("cannot use the folder {}", path.display());
        std::fs::create_dir_all(path).with_context(describe)?;
        let mut manifest = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path.join(MANIFEST))
            .with_context(describe)?;
        match manifest.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another replay is writing to {}", path.display())
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(describe),
        }
        let wanted = json!({
            "ledger": ledger,
            "from": args.from,
            "types": args.types,
            "user": args.user,
        });
        let wanted = format!("{wanted}\n");
        let mut found = String::new();
        manifest.read_to_string(&mut found).with_context(describe)?;
        if found.is_empty() {
            manifest
                .write_all(wanted.as_bytes())
                .with_context(describe)?;
            manifest.sync_all().with_context(describe)?;
        } else if found != wanted {
            bail!(
                "{} contains another replay, which was started as {}; choose another folder",
                path.display(),
                found.trim_end()
            );
        }
        let last = match last_segment(path).with_context(describe)? {
            Some(segment) => last_position(&segment)
                .with_context(|| format!("{} is incomplete", segment.display()))?,
            None => 0,
        };
        Ok(Self {
            path: path.to_owned(),
            segment_events: args.segment_events,
            last,
            segment: None,
            _lock: manifest,
        })
    }

    /// The path of an incomplete segment.
    fn unfinished(&self) -> PathBuf {
        self.path.join("unfinished")
    }

    fn write(&mut self, event: &StoredEvent) -> anyhow::Result<()> {
        let unfinished = self.unfinished();
        let describe = || format!("cannot write {}", unfinished.display());
        let mut segment = match self.segment.take() {
            Some(segment) => segment,
            None => Segment {
                file: BufWriter::with_capacity(
                    1024 * 1024,
                    File::create(&unfinished).with_context(describe)?,
                ),
                first: event.position,
                last: event.position,
                events: 0,
                bytes: 0,
            },
        };
        segment
            .file
            .write_all(&line(event))
            .with_context(describe)?;
        segment.last = event.position;
        segment.events += 1;
        segment.bytes += event.envelope.len() as u64;
        let is_full = segment.events >= self.segment_events || segment.bytes >= SEGMENT_BYTES;
        self.segment = Some(segment);
        if is_full { self.end_segment() } else { Ok(()) }
    }

    /// Writes the segment to disk, and only then gives it its name.
    fn end_segment(&mut self) -> anyhow::Result<()> {
        let Some(segment) = self.segment.take() else {
            return Ok(());
        };
        let unfinished = self.unfinished();
        let path = self
            .path
            .join(format!("events-{:020}.ndjson", segment.first));
        let ended = || -> std::io::Result<()> {
            let file = segment
                .file
                .into_inner()
                .map_err(std::io::IntoInnerError::into_error)?;
            file.sync_all()?;
            std::fs::rename(&unfinished, &path)?;
            File::open(&self.path)?.sync_all()
        };
        ended().with_context(|| format!("cannot write {}", path.display()))?;
        self.last = segment.last;
        Ok(())
    }
}

/// The envelope on one line. Between the members of JSON a line end means the same as a space, and JSON strings contain
/// none.
fn line(event: &StoredEvent) -> Vec<u8> {
    let mut line = Vec::with_capacity(event.envelope.len() + 1);
    line.extend(event.envelope.iter().map(|byte| match byte {
        b'\n' | b'\r' => b' ',
        byte => *byte,
    }));
    line.push(b'\n');
    line
}

fn last_segment(folder: &Path) -> std::io::Result<Option<PathBuf>> {
    let mut last: Option<PathBuf> = None;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(std::ffi::OsStr::to_str);
        let number = name
            .and_then(|name| name.strip_prefix("events-"))
            .and_then(|name| name.strip_suffix(".ndjson"));
        let is_segment = number
            .is_some_and(|number| number.len() == 20 && number.bytes().all(|b| b.is_ascii_digit()));
        if is_segment && last.as_ref().is_none_or(|last| *last < path) {
            last = Some(path);
        }
    }
    Ok(last)
}

/// The position of the event on the last line.
fn last_position(segment: &Path) -> anyhow::Result<Position> {
    #[derive(Deserialize)]
    struct Sequenced {
        sequence: String,
    }

    let mut file = File::open(segment)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_LINE)))?;
    let mut end = Vec::new();
    file.take(MAX_LINE).read_to_end(&mut end)?;
    let lines = end
        .strip_suffix(b"\n")
        .context("the last line has no end")?;
    let last = lines
        .rsplit(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let last: Sequenced = serde_json::from_slice(last).context("the last line is not an event")?;
    last.sequence
        .parse()
        .context("the last line has no position")
}

/// A subject of a stream, which acknowledges each message.
struct Subject {
    connection: Connection,
    subject: String,
    sent: FuturesOrdered<futures::future::BoxFuture<'static, anyhow::Result<(Position, usize)>>>,
    bytes: usize,
    /// All messages up to this position are acknowledged.
    acknowledged: Position,
}

impl Subject {
    fn new(connection: Connection, subject: &str) -> Self {
        Self {
            connection,
            subject: subject.to_owned(),
            sent: FuturesOrdered::new(),
            bytes: 0,
            acknowledged: 0,
        }
    }

    async fn publish(&mut self, event: &StoredEvent) -> anyhow::Result<()> {
        let bytes = event.envelope.len();
        while self.sent.len() >= WINDOW
            || (self.bytes + bytes > WINDOW_BYTES && !self.sent.is_empty())
        {
            self.settle().await?;
        }
        let (position, subject) = (event.position, self.subject.clone());
        let describe = move || {
            format!(
                "position {position} was not acknowledged: is there a stream that takes {subject}, and may this user publish there?"
            )
        };
        let sent = self.connection.publish(self.subject.clone(), event).await;
        let acknowledgement = sent.with_context(describe.clone())?.into_future();
        self.bytes += bytes;
        self.sent.push_back(Box::pin(async move {
            acknowledgement.await.with_context(describe)?;
            Ok((position, bytes))
        }));
        Ok(())
    }

    /// Waits for the oldest acknowledgement. `false`: all have arrived.
    async fn settle(&mut self) -> anyhow::Result<bool> {
        let Some(sent) = self.sent.next().await else {
            return Ok(false);
        };
        let (position, bytes) = sent?;
        self.bytes -= bytes;
        self.acknowledged = position;
        Ok(true)
    }
}
