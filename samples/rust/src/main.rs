//! Subscribes to Profile Ledger and keeps the document of every user, each event folded exactly once.
//!
//! JetStream delivers at least once. What makes that exactly once is remembered here, in the same write as
//! the effect: the last version of each user. A service keeps both in its own database.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::{ConnectOptions, ServerAddr, jetstream};
use clap::Parser;
use events::{Document, EventId, Position, Recorded, UserId, Version};
use futures::TryStreamExt as _;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

const SHARDS: u8 = 64;
/// Messages of one write; the server has no more than these under way.
const BATCH: u8 = 100;

/// How long one request waits for messages.
const IDLE: Duration = Duration::from_secs(1);

/// Keeps the documents of Profile Ledger's users.
#[derive(Parser)]
struct Args {
    /// `nats://[user:password@]host[:port]`, …
    #[arg(long, default_value = "nats://127.0.0.1:4222")]
    nats_url: String,
    /// Name of the durable consumer
    #[arg(long, default_value = "sample")]
    durable: String,
    /// The first position, for a new durable
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from: Position,
    /// i/n: the part of worker i, from 0, of n; without it, the whole stream in one
    #[arg(long, value_parser = shards)]
    shards: Option<Shards>,
    /// Folder of what was handled
    #[arg(long, default_value = "state")]
    state: PathBuf,
    /// Seconds until a message that was not acknowledged comes again
    #[arg(long, default_value_t = 30)]
    ack_wait: u64,
}

/// The shards of one worker: every n-th. One consumer a shard works on every version of the server.
#[derive(Clone)]
struct Shards(Vec<u8>);

fn shards(text: &str) -> Result<Shards, String> {
    let parts = text
        .split_once('/')
        .and_then(|(worker, workers)| Some((worker.parse().ok()?, workers.parse::<u8>().ok()?)));
    match parts {
        Some((worker, workers)) if worker < workers && workers <= SHARDS => {
            Ok(Shards((worker..SHARDS).step_by(workers.into()).collect()))
        }
        _ => Err(format!("i/n: worker i, from 0, of n, at most {SHARDS}")),
    }
}

/// Why a lane does not go on.
enum Trouble {
    /// NATS is away, or refuses: it is tried again.
    Away(Box<dyn std::error::Error + Send + Sync>),
    /// Going on would skip an event, or handle one of another ledger.
    Gap(String),
    /// An event cannot be folded, or the state cannot be written.
    Stuck(anyhow::Error),
}

fn away(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Trouble {
    Trouble::Away(error.into())
}

fn gap<T>(text: String) -> Result<T, Trouble> {
    Err(Trouble::Gap(text))
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Self::Stuck(error)
    }
}

/// What was handled, and what was made of it: one file, replaced as a whole.
#[derive(Serialize, Deserialize)]
struct State {
    start: Position,
    position: Position,
    users: BTreeMap<UserId, Seen>,
}

#[derive(Serialize, Deserialize)]
struct Seen {
    version: Version,
    event: EventId,
    /// `None` when the user's first event was before the start.
    document: Option<Document>,
}

/// What an event comes to.
enum Handled {
    New,
    Duplicate,
    /// Before the start.
    Unwanted,
    /// This position has to be handled first.
    Early(Position),
}

/// The whole stream, or one shard of it: one durable consumer, one state file, events in order.
struct Lane {
    name: String,
    is_whole: bool,
    config: pull::Config,
    stream: jetstream::stream::Stream<()>,
    path: PathBuf,
    state: State,
    /// A file that is replaced has one owner at a time. A shard's file goes with the shard to another worker.
    _lock: File,
}

impl Lane {
    async fn open(
        jetstream: &jetstream::Context,
        args: &Args,
        shard: Option<u8>,
    ) -> anyhow::Result<Self> {
        let (name, subject) = match shard {
            Some(shard) => (
                format!("{}-p{shard:02}", args.durable),
                format!("profiles.v1.p{shard:02}.*"),
            ),
            None => (args.durable.clone(), "profiles.v1.>".to_owned()),
        };
        let path = args.state.join(format!("{name}.json"));
        let lock = File::create(path.with_extension("lock"))?;
        lock.try_lock()
            .with_context(|| format!("{} is another worker's", path.display()))?;
        let state = if path.exists() {
            serde_json::from_slice(&std::fs::read(&path)?)
                .with_context(|| format!("{}", path.display()))?
        } else {
            State {
                start: args.from,
                position: args.from - 1,
                users: BTreeMap::new(),
            }
        };
        let config = pull::Config {
            durable_name: Some(name.clone()),
            filter_subject: subject,
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_secs(args.ack_wait),
            max_ack_pending: BATCH.into(),
            ..pull::Config::default()
        };
        let stream = jetstream
            .get_stream_no_info(events::subject::STREAM)
            .await?;
        Ok(Self {
            name,
            is_whole: shard.is_none(),
            config,
            stream,
            path,
            state,
            _lock: lock,
        })
    }

    async fn run(mut self) -> Trouble {
        let mut consumer = None;
        loop {
            let done = match &consumer {
                None => self.subscribe().await.map(|made| consumer = Some(made)),
                Some(consumer) => self.step(consumer).await,
            };
            match done {
                Ok(()) => {}
                Err(Trouble::Away(error)) => {
                    eprintln!(
                        "{}: NATS is away, or refuses ({error}), trying again",
                        self.name
                    );
                    consumer = None; // made again if somebody deleted it
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(trouble) => return trouble,
            }
        }
    }

    /// The durable consumer lives on the server; any worker goes on where the last one was.
    async fn subscribe(&mut self) -> Result<PullConsumer, Trouble> {
        self.look(None).await?;
        match self.stream.consumer_info(&self.name).await {
            Ok(info) if info.ack_floor.consumer_sequence > 0 && !self.path.exists() => {
                return gap(format!(
                    "{} was read before, but what was made of it is not in this state",
                    self.name
                ));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => {
                let start_sequence = self.state.position + 1;
                let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence };
                let config = pull::Config {
                    deliver_policy,
                    ..self.config.clone()
                };
                self.stream.create_consumer(config).await.map_err(away)?;
            }
            Err(error) => return Err(away(error)),
        }
        self.save()?;
        self.stream.get_consumer(&self.name).await.map_err(away)
    }

    async fn step(&mut self, consumer: &PullConsumer) -> Result<(), Trouble> {
        // What is there now; or else the next one.
        let there = consumer.fetch().max_messages(BATCH.into());
        let there = there.messages().await.map_err(away)?;
        let mut messages: Vec<_> = there.try_collect().await.map_err(Trouble::Away)?;
        if messages.is_empty() {
            let next = consumer.batch().max_messages(1).expires(IDLE);
            let next = next.messages().await.map_err(away)?;
            messages = next.try_collect().await.map_err(Trouble::Away)?;
        }
        if messages.is_empty() {
            return self.look(Some(consumer)).await;
        }
        let (mut lines, mut handled, mut early) = (Vec::new(), Vec::new(), None);
        for message in messages {
            let event = read(&message)?;
            let comes_to = self.handle(&event)?;
            let line = format!(
                "{} {} {} {}",
                event.position,
                event.version,
                event.event.event_type(),
                event.user_id
            );
            match comes_to {
                Handled::New => lines.push(line),
                Handled::Duplicate => lines.push(format!("duplicate {line}")),
                Handled::Unwanted => {}
                Handled::Early(missing) => {
                    early = Some(missing);
                    break;
                }
            }
            handled.push(message);
        }
        self.save()?;
        print(&lines);
        for message in handled {
            message.ack().await.map_err(Trouble::Away)?; // on disk, so the server may forget it
        }
        match early {
            Some(missing) => self.wait_for(missing).await,
            None => Ok(()),
        }
    }

    fn handle(&mut self, event: &Recorded) -> Result<Handled, Trouble> {
        let seen = self.state.users.get(&event.user_id);
        if let Some(seen) = seen.filter(|seen| event.version <= seen.version) {
            if event.version == seen.version && event.event_id != seen.event {
                let position = event.position;
                return gap(format!(
                    "position {position} is another event than the one handled: the ledger was replaced"
                ));
            }
            return Ok(Handled::Duplicate);
        }
        if let Some(missing) = self.missing_before(event) {
            return Ok(Handled::Early(missing));
        }
        if event.position < self.state.start {
            return Ok(Handled::Unwanted);
        }
        let document = seen.and_then(|seen| seen.document.clone());
        let document = if document.is_some() || event.version == 1 {
            let folded = events::document::fold(document, event);
            Some(folded.with_context(|| format!("position {} cannot be folded", event.position))?)
        } else {
            None
        };
        let seen = Seen {
            version: event.version,
            event: event.event_id,
            document,
        };
        self.state.users.insert(event.user_id, seen);
        self.state.position = self.state.position.max(event.position);
        Ok(Handled::New)
    }

    /// The position that has to be handled before an event and was not, if there is one. In the whole stream
    /// it is the position before. In a shard positions jump; there each event names the one of its user before
    /// it, so a hole shows at the user's next event.
    fn missing_before(&self, event: &Recorded) -> Option<Position> {
        if self.is_whole && event.position > self.state.position + 1 {
            return Some(self.state.position + 1);
        }
        let before = event.previous.map_or(0, |previous| previous.position);
        let is_next = match self.state.users.get(&event.user_id) {
            Some(seen) => event.version == seen.version + 1,
            None => before < self.state.start,
        };
        (!is_next).then_some(before)
    }

    /// An early event: the one before it is with a worker that died, or lost on its way, or is gone. Nothing
    /// after it is handled, or two events of a user could change places. When the wait is over the server sends
    /// all that was not acknowledged again, in order, before anything else.
    async fn wait_for(&self, missing: Position) -> Result<(), Trouble> {
        let info = self.stream.consumer_info(&self.name).await.map_err(away)?;
        self.judge(missing, &info).await?;
        tokio::time::sleep(info.config.ack_wait + Duration::from_millis(100)).await;
        Ok(())
    }

    /// An error if an event that is missing here will never come.
    async fn judge(&self, missing: Position, info: &consumer::Info) -> Result<(), Trouble> {
        match self.stream.get_raw_message(missing).await {
            Ok(_) if missing > info.ack_floor.stream_sequence => Ok(()),
            Ok(_) => gap(format!(
                "position {missing} was acknowledged, but is not in this state: an older copy of it?"
            )),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                let stream = self.stream.get_info().await.map_err(away)?.state;
                let first = stream.first_sequence;
                gap(format!(
                    "position {missing} is not in the stream, which begins at {first}"
                ))
            }
            Err(error) => Err(away(error)),
        }
    }

    /// Compares what was handled with what the stream has: at the start, and whenever nothing comes.
    async fn look(&mut self, consumer: Option<&PullConsumer>) -> Result<(), Trouble> {
        let stream = self.stream.get_info().await.map_err(away)?.state;
        let (first, last) = (stream.first_sequence, stream.last_sequence);
        let position = self.state.position;
        if last < position {
            return gap(format!(
                "the stream ends at {last}, before position {position}: it was made anew, or is not filled yet"
            ));
        }
        if first > position + 1 {
            return gap(format!(
                "positions {} to {} have left the stream",
                position + 1,
                first - 1
            ));
        }
        if consumer.is_none() || position == last {
            return Ok(());
        }
        // As it is after the end of the stream was read.
        let info = self.stream.consumer_info(&self.name).await.map_err(away)?;
        if info.num_pending > 0 || info.num_ack_pending > 0 {
            return Ok(());
        }
        if self.is_whole {
            return self.judge(position + 1, &info).await;
        }
        self.state.position = last; // the rest is of other shards
        self.save().map_err(Trouble::Stuck)
    }

    /// All or nothing: a new file takes the place of the old one when it is on disk.
    fn save(&self) -> anyhow::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new).context("the state cannot be written")?;
        file.write_all(&serde_json::to_vec(&self.state)?)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        let folder = self.path.parent().context("the state has a folder")?;
        Ok(File::open(folder)?.sync_all()?)
    }
}

/// The event of a message, whole: `events` knows its shape, its upcasters, and how to fold it.
fn read(message: &jetstream::Message) -> Result<Recorded, Trouble> {
    let sequence = message.info().map_err(Trouble::Away)?.stream_sequence;
    let header = |name| {
        let headers = message.headers.as_ref()?;
        headers.get(name).map(async_nats::HeaderValue::as_str)
    };
    let stored = events::message::from_message(header, &message.payload)
        .with_context(|| format!("sequence {sequence} is no event"))?;
    if stored.position != sequence {
        return gap(format!(
            "sequence {sequence} holds position {}",
            stored.position
        ));
    }
    let recorded = stored.decode();
    Ok(recorded.with_context(|| format!("position {sequence} cannot be read"))?)
}

/// A reader that has gone is no reason to stop.
fn print(lines: &[String]) {
    let mut out = std::io::stdout().lock();
    for line in lines {
        let _ = writeln!(out, "{line}");
    }
}

async fn run(args: Args) -> anyhow::Result<Trouble> {
    std::fs::create_dir_all(&args.state)?;
    let servers = args.nats_url.split(',').map(str::parse);
    let servers: Vec<ServerAddr> = servers.collect::<Result<_, _>>()?;
    let mut options = ConnectOptions::new()
        .name(&args.durable)
        .retry_on_initial_connect()
        .event_callback(async |event| eprintln!("NATS: {event}"));
    // The client reads them out of the address, and leaves their use to us.
    if let Some(server) = servers.first()
        && let (Some(user), Some(password)) = (server.username(), server.password())
    {
        let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        options = options.user_and_password(decoded(user), decoded(password));
    }
    let client = options.connect(servers).await?;
    let jetstream = jetstream::new(client);
    let mut lanes = tokio::task::JoinSet::new();
    let shards = match &args.shards {
        Some(Shards(shards)) => shards.iter().copied().map(Some).collect(),
        None => vec![None],
    };
    for shard in shards {
        lanes.spawn(Lane::open(&jetstream, &args, shard).await?.run());
    }
    let first = lanes
        .join_next()
        .await
        .context("there is at least one lane")?;
    Ok(first?)
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = tokio::select! {
        done = run(Args::parse()) => done,
        _ = tokio::signal::ctrl_c() => return ExitCode::SUCCESS,
    };
    match done {
        Ok(Trouble::Gap(gap)) => {
            eprintln!("gap: {gap}");
            return ExitCode::FAILURE;
        }
        Ok(Trouble::Stuck(error)) | Err(error) => eprintln!("subscribe: {error:#}"),
        Ok(Trouble::Away(error)) => eprintln!("subscribe: {error}"),
    }
    ExitCode::from(2)
}
