//! The samples of subscribers, each in its language: they see what the ledger has, in its order, make every
//! event count once whatever happens, and say so when they cannot.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::{self, stream};
use events::store::sqlite::SqliteStore;
use events::test_servers::Nats;
use events::{Document, Position, StoredEvent, UserId};
use futures::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::service::{DEADLINE, Folder, Service, command, send};

const USERS: u64 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sample {
    Rust,
    Python,
    TypeScript,
}

const ALL: [Sample; 3] = [Sample::Rust, Sample::Python, Sample::TypeScript];

fn samples() -> PathBuf {
    let server = Path::new(env!("CARGO_MANIFEST_DIR"));
    server.parent().unwrap().join("samples")
}

fn python() -> PathBuf {
    samples().join("python/.venv/bin/python")
}

impl Sample {
    /// Panics if it is not there: a test that needs it has failed.
    fn command(self) -> Command {
        let (program, script) = match self {
            Self::Rust => {
                let ours = Path::new(env!("CARGO_BIN_EXE_profile-ledger"));
                (ours.with_file_name("subscribe"), None)
            }
            Self::Python => (python(), Some("python/subscribe.py")),
            Self::TypeScript => ("node".into(), Some("typescript/build/subscribe.js")),
        };
        let script = script.map(|script| samples().join(script));
        let needed = script
            .iter()
            .chain(program.is_absolute().then_some(&program));
        for file in needed {
            assert!(
                file.exists(),
                "{} is not there: scripts/test makes it, or scripts/samples and `cargo build -p subscribe`",
                file.display()
            );
        }
        let mut command = Command::new(program);
        command.args(script);
        command
    }
}

/// A running sample; ended with the test.
struct Subscriber {
    process: Child,
    lines: Receiver<String>,
    errors: ChildStderr,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Subscriber {
    /// The next line of output. Waiting for one that never comes is a failure.
    #[track_caller]
    fn line(&mut self) -> String {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => line,
            Err(error) => {
                let _ = self.process.kill();
                let mut errors = String::new();
                let _ = self.errors.read_to_string(&mut errors);
                panic!("the sample prints no more ({error}): {errors}");
            }
        }
    }

    /// As many lines as asked for.
    #[track_caller]
    fn take(&mut self, lines: usize) -> Vec<String> {
        (0..lines).map(|_| self.line()).collect()
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Ends it as Ctrl-C does; what it printed since.
    async fn interrupt(mut self) -> Vec<String> {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status();
        assert!(sent.unwrap().success());
        assert_eq!(self.exit().await, Some(0));
        self.lines.iter().collect()
    }

    /// Waits for its end; the exit code, and what it says.
    async fn end(mut self) -> (Option<i32>, String) {
        let code = self.exit().await;
        let mut errors = String::new();
        self.errors.read_to_string(&mut errors).unwrap();
        (code, errors)
    }

    async fn exit(&mut self) -> Option<i32> {
        let ending = async {
            loop {
                if let Some(status) = self.process.try_wait().unwrap() {
                    return status.code();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ended = tokio::time::timeout(DEADLINE, ending).await;
        ended.expect("the sample does not end")
    }
}

/// A service that publishes, and its users.
struct Ledger {
    folder: Folder,
    nats: Nats,
    service: Service,
}

fn user(n: u64) -> String {
    format!("{n:024x}")
}

impl Ledger {
    async fn new() -> Self {
        Self::with_stream(|_| {}).await
    }

    /// A stream that an operator made, as the relay would but for something.
    async fn with_stream(change: impl FnOnce(&mut stream::Config)) -> Self {
        let nats = Nats::start();
        let mut config = stream::Config {
            name: "PROFILES".to_owned(),
            subjects: vec!["profiles.v1.>".to_owned()],
            allow_direct: true,
            ..stream::Config::default()
        };
        change(&mut config);
        jetstream(&nats).await.create_stream(config).await.unwrap();
        let folder = Folder::new();
        let mut started = command(&folder.data_dir());
        started.env("NATS_URL", nats.url());
        let service = folder.start_with(started);
        let ledger = Self {
            folder,
            nats,
            service,
        };
        let sign_up = ledger.service.token("sign-up", "service");
        for n in 1..=USERS {
            let body = json!({"_id": user(n), "username": format!("user{n}"), "name": "N", "surname": "S"});
            let made = ledger
                .service
                .send_json(Method::POST, "/api/v1/users", &sign_up, &body)
                .await;
            assert_eq!(made.status, StatusCode::CREATED);
        }
        ledger.change_all("first").await;
        ledger
    }

    /// One more event of each user, by all users at once.
    async fn change_all(&self, bio: &str) {
        let changes = (1..=USERS).map(|n| {
            let token = self.service.token(&user(n), "user");
            let body = json!({"name": "N", "surname": "S", "bio": bio});
            let change = self.service.request(Method::PUT, "/api/v1/users/profile");
            send(change.bearer_auth(token).json(&body))
        });
        for changed in futures::future::join_all(changes).await {
            assert_eq!(changed.status, StatusCode::OK);
        }
    }

    /// Everything, once it is published.
    async fn published(&self) -> Vec<StoredEvent> {
        let path = self.folder.data_dir().join("ledger.db");
        let events = SqliteStore::open_to_read(&path).await.unwrap();
        let events = events.read(0, 10_000).await.unwrap();
        let stream = self.stream().await;
        let arriving = async {
            while stream.get_info().await.unwrap().state.last_sequence < events.len() as u64 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let arrived = tokio::time::timeout(DEADLINE, arriving).await;
        arrived.expect("the ledger is never published");
        events
    }

    async fn stream(&self) -> stream::Stream {
        jetstream(&self.nats)
            .await
            .get_stream("PROFILES")
            .await
            .unwrap()
    }

    /// A durable consumer as the samples make it.
    async fn consumer(&self, durable: &str, subject: &str, from: Position) -> PullConsumer {
        let config = pull::Config {
            durable_name: Some(durable.to_owned()),
            filter_subject: subject.to_owned(),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: from,
            },
            ack_wait: Duration::from_secs(2),
            ..pull::Config::default()
        };
        self.stream().await.create_consumer(config).await.unwrap()
    }

    fn state(&self, sample: Sample) -> PathBuf {
        self.folder.data_dir().join(format!("{sample:?}"))
    }

    /// Starts a sample with a durable of its own.
    fn subscribe(&self, sample: Sample, arguments: &[&str]) -> Subscriber {
        self.subscribe_as(&format!("{sample:?}"), sample, arguments)
    }

    /// Starts a sample with a state folder of its own.
    fn subscribe_as(&self, durable: &str, sample: Sample, arguments: &[&str]) -> Subscriber {
        let mut process = sample
            .command()
            .args(["--nats-url", &self.nats.url(), "--ack-wait", "2"])
            .args(["--durable", durable])
            .arg("--state")
            .arg(self.state(sample))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let errors = process.stderr.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Subscriber {
            process,
            lines,
            errors,
        }
    }

    /// What a sample made of events, each counted exactly once.
    #[track_caller]
    fn has_effect(&self, sample: Sample, events: &[StoredEvent]) {
        if sample == Sample::Rust {
            assert_eq!(self.documents(), folded(events), "{sample:?}");
            return;
        }
        let mut expected = BTreeMap::<String, u64>::new();
        for event in events {
            *expected.entry(event.event_type.clone()).or_default() += 1;
        }
        assert_eq!(self.counts(sample), expected, "{sample:?}");
    }

    fn documents(&self) -> BTreeMap<UserId, Document> {
        let mut documents = BTreeMap::new();
        for state in states(&self.state(Sample::Rust)) {
            for (user, seen) in state["users"].as_object().unwrap() {
                let document = serde_json::from_value(seen["document"].clone()).unwrap();
                documents.insert(user.parse().unwrap(), document);
            }
        }
        documents
    }

    fn counts(&self, sample: Sample) -> BTreeMap<String, u64> {
        let folder = self.state(sample);
        let states = if sample == Sample::Python {
            let script = "import glob, json, sqlite3, sys\n\
                for file in glob.glob(sys.argv[1] + '/*.db'):\n  \
                  counts = dict(sqlite3.connect(file).execute('SELECT * FROM counts'))\n  \
                  print(json.dumps({'counts': counts}))";
            let dumped = Command::new(python())
                .args(["-c", script])
                .arg(folder)
                .output()
                .unwrap();
            assert!(dumped.status.success(), "{dumped:?}");
            let dumped = String::from_utf8(dumped.stdout).unwrap();
            dumped
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        } else {
            states(&folder)
        };
        let mut sum = BTreeMap::new();
        for state in states {
            for (name, count) in state["counts"].as_object().unwrap() {
                *sum.entry(name.clone()).or_default() += count.as_u64().unwrap();
            }
        }
        sum
    }
}

async fn jetstream(nats: &Nats) -> jetstream::Context {
    jetstream::new(async_nats::connect(nats.url()).await.unwrap())
}

/// The state files that are JSON.
fn states(folder: &Path) -> Vec<Value> {
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    files
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
        .collect()
}

fn folded(events: &[StoredEvent]) -> BTreeMap<UserId, Document> {
    let mut documents = BTreeMap::new();
    for event in events {
        let recorded = event.decode().unwrap();
        let document = documents.remove(&event.user_id);
        documents.insert(
            event.user_id,
            events::document::fold(document, &recorded).unwrap(),
        );
    }
    documents
}

/// The line that a sample prints of an event.
fn line(event: &StoredEvent) -> String {
    format!(
        "{} {} {} {}",
        event.position, event.version, event.event_type, event.user_id
    )
}

fn lines(events: &[StoredEvent]) -> Vec<String> {
    events.iter().map(line).collect()
}

/// The lines of a user are its events, in their order.
#[track_caller]
fn is_in_order(lines: &[String], all: &[StoredEvent], user: UserId, sample: Sample) {
    let expected = all.iter().filter(|event| event.user_id == user).map(line);
    let id = user.to_string();
    let seen = lines.iter().filter(|line| line.ends_with(&id));
    assert!(expected.eq(seen.cloned()), "{sample:?}: {lines:?}");
}

#[tokio::test]
async fn a_sample_sees_the_ledger_in_its_order_and_goes_on_where_it_was() {
    let ledger = Ledger::new().await;
    let first = ledger.published().await;
    for sample in ALL {
        let mut subscriber = ledger.subscribe(sample, &[]);
        assert_eq!(subscriber.take(first.len()), lines(&first), "{sample:?}");
        assert_eq!(subscriber.interrupt().await, [""; 0], "{sample:?}");
        ledger.has_effect(sample, &first);
    }
    ledger.change_all("second").await;
    let all = ledger.published().await;
    for sample in ALL {
        let mut subscriber = ledger.subscribe(sample, &[]);
        let news = &all[first.len()..];
        assert_eq!(subscriber.take(news.len()), lines(news), "{sample:?}");
        // It waits for what comes.
        assert_eq!(subscriber.interrupt().await, [""; 0], "{sample:?}");
        ledger.has_effect(sample, &all);
    }
}

#[tokio::test]
async fn a_sample_starts_from_a_position_and_not_beyond_the_end() {
    let ledger = Ledger::new().await;
    let all = ledger.published().await;
    for sample in ALL {
        let mut subscriber = ledger.subscribe(sample, &["--from", "5"]);
        assert_eq!(
            subscriber.take(all.len() - 4),
            lines(&all[4..]),
            "{sample:?}"
        );
        let beyond = ledger.subscribe_as(&format!("beyond{sample:?}"), sample, &["--from", "1000"]);
        let (code, error) = beyond.end().await;
        assert_eq!(code, Some(1), "{sample:?}: {error}");
        assert!(error.contains("before position 999"), "{sample:?}: {error}");
    }
}

#[tokio::test]
async fn a_sample_that_is_killed_again_and_again_makes_every_event_count_once() {
    let ledger = Ledger::new().await;
    for round in 0..4 {
        let mut started = Vec::new();
        for sample in ALL {
            started.push((ledger.subscribe(sample, &[]), sample));
        }
        ledger.change_all(&format!("round {round}")).await;
        for (mut subscriber, sample) in started {
            // Somewhere in the middle: more is on its way.
            let seen = subscriber.take(2);
            assert_eq!(seen.len(), 2, "{sample:?}");
            subscriber.kill();
        }
    }
    ledger.change_all("last").await;
    let all = ledger.published().await;
    let last = line(all.last().unwrap());
    for sample in ALL {
        let mut subscriber = ledger.subscribe(sample, &[]);
        while subscriber.line() != last {}
        subscriber.interrupt().await;
        ledger.has_effect(sample, &all);
    }
}

#[tokio::test]
async fn an_event_that_comes_again_is_told_apart_and_has_no_effect() {
    let ledger = Ledger::new().await;
    let all = ledger.published().await;
    for sample in ALL {
        let name = format!("{sample:?}");
        let mut subscriber = ledger.subscribe(sample, &[]);
        subscriber.take(all.len());
        subscriber.interrupt().await;
        // The server forgets that any was acknowledged.
        ledger.stream().await.delete_consumer(&name).await.unwrap();
        ledger.consumer(&name, "profiles.v1.>", 1).await;
        ledger.change_all(&name).await;
        let more = ledger.published().await;
        let mut subscriber = ledger.subscribe(sample, &[]);
        let again = subscriber.take(all.len());
        for (line, event) in again.iter().zip(&all) {
            assert_eq!(
                *line,
                format!("duplicate {}", self::line(event)),
                "{sample:?}"
            );
        }
        while subscriber.line() != line(more.last().unwrap()) {}
        subscriber.interrupt().await;
        ledger.has_effect(sample, &more);
    }
}

#[tokio::test]
async fn events_that_another_worker_took_and_lost_are_waited_for() {
    let ledger = Ledger::new().await;
    let all = ledger.published().await;
    // Of a shard with the events of several users: those of others may come first.
    let theirs = all.last().unwrap();
    let shard = theirs.user_id.shard();
    let of_shard: Vec<_> = all
        .iter()
        .filter(|event| event.user_id.shard() == shard)
        .collect();
    for sample in ALL {
        let take_one = async |durable: String, subject: &str| {
            let consumer = ledger.consumer(&durable, subject, 1).await;
            let taken = consumer.fetch().max_messages(1).messages().await.unwrap();
            assert_eq!(taken.count().await, 1);
        };
        take_one(format!("{sample:?}"), "profiles.v1.>").await;
        let mut subscriber = ledger.subscribe(sample, &[]);
        assert_eq!(subscriber.take(all.len()), lines(&all), "{sample:?}");

        let subject = format!("profiles.v1.p{shard:02}.*");
        take_one(format!("{sample:?}-p{shard:02}"), &subject).await;
        let mut subscriber = ledger.subscribe(sample, &["--shards", &format!("{shard}/64")]);
        let seen = subscriber.take(of_shard.len());
        for user in of_shard.iter().map(|event| event.user_id) {
            is_in_order(&seen, &all, user, sample);
        }
    }
}

#[tokio::test]
async fn a_hole_in_the_stream_is_named() {
    let ledger = Ledger::with_stream(|config| config.deny_delete = false).await;
    ledger.change_all("second").await;
    let all = ledger.published().await;
    // Neither the first nor the last event of its user.
    let hole = all.iter().find(|event| event.version == 2).unwrap();
    let stream = ledger.stream().await;
    stream.delete_message(hole.position).await.unwrap();
    let named = format!("gap: position {} is not in the stream", hole.position);
    for sample in ALL {
        let shard = format!("{}/64", hole.user_id.shard());
        for arguments in [&[][..], &["--shards", &shard]] {
            let (code, error) = ledger.subscribe(sample, arguments).end().await;
            assert_eq!(code, Some(1), "{sample:?} {arguments:?}: {error}");
            assert!(error.contains(&named), "{sample:?} {arguments:?}: {error}");
        }
        // What was before it was handled.
        let before = usize::try_from(hole.position).unwrap() - 1;
        if sample != Sample::Rust {
            let handled: u64 = ledger.counts(sample).values().sum();
            assert!(handled >= before as u64, "{sample:?}");
        }
    }
    // The last one, after which nothing comes.
    stream.delete_message(all.len() as u64).await.unwrap();
    let from = hole.position + 1;
    for sample in ALL {
        let arguments = ["--from", &from.to_string()];
        let (code, error) = ledger
            .subscribe_as(&format!("tail{sample:?}"), sample, &arguments)
            .end()
            .await;
        assert_eq!(code, Some(1), "{sample:?}: {error}");
        let named = format!("gap: position {} is not in the stream", all.len());
        assert!(error.contains(&named), "{sample:?}: {error}");
    }
}

#[tokio::test]
async fn what_has_left_the_stream_is_named() {
    let ledger = Ledger::with_stream(|config| config.max_messages = 5).await;
    let all = ledger.published().await;
    let gone = all.len() - 5;
    for sample in ALL {
        for arguments in [&[][..], &["--shards", "0/2"]] {
            let (code, error) = ledger.subscribe(sample, arguments).end().await;
            assert_eq!(code, Some(1), "{sample:?}: {error}");
            let named = format!("gap: positions 1 to {gone} have left the stream");
            assert!(error.contains(&named), "{sample:?}: {error}");
        }
        let from = (gone + 1).to_string();
        let mut subscriber =
            ledger.subscribe_as(&format!("late{sample:?}"), sample, &["--from", &from]);
        assert_eq!(subscriber.take(5), lines(&all[gone..]), "{sample:?}");
    }
}

#[tokio::test]
async fn a_stream_that_was_made_anew_and_a_state_that_was_lost_are_named() {
    let ledger = Ledger::with_stream(|config| config.deny_delete = false).await;
    let all = ledger.published().await;
    for sample in ALL {
        let mut subscriber = ledger.subscribe(sample, &[]);
        subscriber.take(all.len());
        subscriber.interrupt().await;
        let (state, aside) = (
            ledger.state(sample),
            ledger.state(sample).with_extension("aside"),
        );
        std::fs::rename(&state, &aside).unwrap();
        let (code, error) = ledger.subscribe(sample, &[]).end().await;
        assert_eq!(code, Some(1), "{sample:?}: {error}");
        assert!(
            error.contains("gap: ") && error.contains("is not in this state"),
            "{sample:?}: {error}"
        );
        std::fs::remove_dir_all(&state).unwrap();
        std::fs::rename(&aside, &state).unwrap();
    }
    let config = ledger.stream().await.cached_info().config.clone();
    let context = jetstream(&ledger.nats).await;
    let Ledger {
        folder,
        nats,
        service,
    } = ledger;
    service.stop();
    context.delete_stream("PROFILES").await.unwrap();
    context.create_stream(config).await.unwrap();
    let service = folder.start();
    let ledger = Ledger {
        folder,
        nats,
        service,
    };
    for sample in ALL {
        let (code, error) = ledger.subscribe(sample, &[]).end().await;
        assert_eq!(code, Some(1), "{sample:?}: {error}");
        let named = format!("gap: the stream ends at 0, before position {}", all.len());
        assert!(error.contains(&named), "{sample:?}: {error}");
    }
}

#[tokio::test]
async fn workers_by_shard_see_everything_once_and_each_user_in_order() {
    let ledger = Ledger::new().await;
    ledger.change_all("second").await;
    let all = ledger.published().await;
    for sample in ALL {
        let mut seen = Vec::new();
        for worker in 0..2 {
            let part = format!("{worker}/2");
            let mine = all
                .iter()
                .filter(|event| event.user_id.shard() % 2 == worker);
            let mut subscriber = ledger.subscribe(sample, &["--shards", &part]);
            let lines = subscriber.take(mine.clone().count());
            for user in mine.map(|event| event.user_id) {
                is_in_order(&lines, &all, user, sample);
            }
            subscriber.interrupt().await;
            seen.extend(lines);
        }
        let mut expected = lines(&all);
        expected.sort();
        seen.sort();
        assert_eq!(seen, expected, "{sample:?}");
        ledger.has_effect(sample, &all);
    }
    // Three workers take over what two had.
    ledger.change_all("third").await;
    let more = ledger.published().await;
    for sample in ALL {
        for worker in 0..3 {
            let part = format!("{worker}/3");
            let news = more[all.len()..]
                .iter()
                .filter(|event| event.user_id.shard() % 3 == worker);
            let mut subscriber = ledger.subscribe(sample, &["--shards", &part]);
            subscriber.take(news.count());
            subscriber.interrupt().await;
        }
        ledger.has_effect(sample, &more);
    }
}

#[tokio::test]
async fn two_workers_of_one_shard_at_once_do_no_harm() {
    let ledger = Ledger::new().await;
    // State that can be shared is: each event counts once, whoever gets it.
    let workers = [0, 1].map(|_| ledger.subscribe(Sample::Python, &["--shards", "0/1"]));
    for round in 0..5 {
        ledger.change_all(&format!("round {round}")).await;
    }
    let all = ledger.published().await;
    let counted = async {
        while ledger.counts(Sample::Python).values().sum::<u64>() < all.len() as u64 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let counted = tokio::time::timeout(DEADLINE, counted).await;
    counted.expect("some events are never counted");
    let mut printed = String::new();
    for worker in workers {
        for line in worker.interrupt().await {
            writeln!(printed, "{line}").unwrap();
        }
    }
    for line in lines(&all) {
        let times = printed.lines().filter(|printed| **printed == line).count();
        assert_eq!(times, 1, "{line}");
    }
    ledger.has_effect(Sample::Python, &all);
    // A file that is replaced has one owner.
    for sample in [Sample::Rust, Sample::TypeScript] {
        let mut first = ledger.subscribe(sample, &[]);
        first.take(all.len());
        let (code, error) = ledger.subscribe(sample, &[]).end().await;
        assert_eq!(code, Some(2), "{sample:?}: {error}");
    }
}
