//! The samples, running, and a ledger for them to follow.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::{self, stream};
use events::{Document, Position, StoredEvent, UserId};
use ledger::store::sqlite::SqliteStore;
use ledger::test_servers::Nats;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::service::{DEADLINE, Folder, Service, command, send};

pub(super) const USERS: u64 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sample {
    Rust,
    Python,
    TypeScript,
}

pub(super) const ALL: [Sample; 3] = [Sample::Rust, Sample::Python, Sample::TypeScript];

pub(super) fn samples() -> PathBuf {
    let server = Path::new(env!("CARGO_MANIFEST_DIR"));
    server.parent().unwrap().join("samples")
}

pub(super) fn python() -> PathBuf {
    samples().join("python/.venv/bin/python")
}

impl Sample {
    /// Panics if it is not there: a test that needs it has failed.
    pub(super) fn command(self) -> Command {
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
pub(super) struct Subscriber {
    pub(super) process: Child,
    pub(super) lines: Receiver<String>,
    pub(super) errors: ChildStderr,
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
    pub(super) fn line(&mut self) -> String {
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
    pub(super) fn take(&mut self, lines: usize) -> Vec<String> {
        (0..lines).map(|_| self.line()).collect()
    }

    pub(super) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Ends it as Ctrl-C does; what it printed since.
    pub(super) async fn interrupt(mut self) -> Vec<String> {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status();
        assert!(sent.unwrap().success());
        assert_eq!(self.exit().await, Some(0));
        self.lines.iter().collect()
    }

    /// Waits for its end; the exit code, and what it says.
    pub(super) async fn end(mut self) -> (Option<i32>, String) {
        let code = self.exit().await;
        let mut errors = String::new();
        self.errors.read_to_string(&mut errors).unwrap();
        (code, errors)
    }

    pub(super) async fn exit(&mut self) -> Option<i32> {
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
pub(super) struct Ledger {
    pub(super) folder: Folder,
    pub(super) nats: Nats,
    pub(super) service: Service,
}

pub(super) fn user(n: u64) -> String {
    format!("{n:024x}")
}

impl Ledger {
    pub(super) async fn new() -> Self {
        Self::with_stream(|_| {}).await
    }

    /// A stream that an operator made, as the relay would but for something.
    pub(super) async fn with_stream(change: impl FnOnce(&mut stream::Config)) -> Self {
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
    pub(super) async fn change_all(&self, bio: &str) {
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
    pub(super) async fn published(&self) -> Vec<StoredEvent> {
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

    pub(super) async fn stream(&self) -> stream::Stream {
        jetstream(&self.nats)
            .await
            .get_stream("PROFILES")
            .await
            .unwrap()
    }

    /// A durable consumer as the samples make it.
    pub(super) async fn consumer(
        &self,
        durable: &str,
        subject: &str,
        from: Position,
    ) -> PullConsumer {
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

    pub(super) fn state(&self, sample: Sample) -> PathBuf {
        self.folder.data_dir().join(format!("{sample:?}"))
    }

    /// Starts a sample with a durable of its own.
    pub(super) fn subscribe(&self, sample: Sample, arguments: &[&str]) -> Subscriber {
        self.subscribe_as(&format!("{sample:?}"), sample, arguments)
    }

    /// Starts a sample with a state folder of its own.
    pub(super) fn subscribe_as(
        &self,
        durable: &str,
        sample: Sample,
        arguments: &[&str],
    ) -> Subscriber {
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
    pub(super) fn has_effect(&self, sample: Sample, events: &[StoredEvent]) {
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

    pub(super) fn documents(&self) -> BTreeMap<UserId, Document> {
        let mut documents = BTreeMap::new();
        for state in states(&self.state(Sample::Rust)) {
            for (user, seen) in state["users"].as_object().unwrap() {
                let document = serde_json::from_value(seen["document"].clone()).unwrap();
                documents.insert(user.parse().unwrap(), document);
            }
        }
        documents
    }

    pub(super) fn counts(&self, sample: Sample) -> BTreeMap<String, u64> {
        let folder = self.state(sample);
        let states = if sample == Sample::Python {
            // A worker that has just started has a file without tables: nothing is counted in it yet.
            let script = "import glob, json, sqlite3, sys\n\
                for file in glob.glob(sys.argv[1] + '/*.db'):\n  \
                  state = sqlite3.connect(file, timeout=30)\n  \
                  tables = state.execute(\"SELECT 1 FROM sqlite_master WHERE name = 'counts'\").fetchone()\n  \
                  counts = dict(state.execute('SELECT * FROM counts')) if tables else {}\n  \
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

pub(super) async fn jetstream(nats: &Nats) -> jetstream::Context {
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
