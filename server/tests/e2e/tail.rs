//! `profile-ledger tail`: what it prints, and how it ends.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};

use ledger::test_servers::Nats;
use ledger::test_servers::postgres::Postgres;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::service::{DEADLINE, DEMO_USER, Folder, Service, command};

/// A running `tail`; ended with the test.
struct Tail {
    process: Child,
    lines: Receiver<String>,
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(command: &mut Command) -> (Child, ChildStdout) {
    let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
    let output = process.stdout.take().unwrap();
    (process, output)
}

fn tail(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = command(data_dir);
    command.arg("tail").args(arguments);
    command
}

impl Tail {
    fn start(command: &mut Command) -> Self {
        let (process, output) = spawn(command);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { process, lines }
    }

    /// The next event.
    #[track_caller]
    fn event(&self) -> Value {
        let line = self.lines.recv_timeout(DEADLINE);
        serde_json::from_str(&line.expect("another event in time")).unwrap()
    }

    /// The positions of the next events.
    #[track_caller]
    fn positions(&self, events: usize) -> Vec<u64> {
        let position = |event: Value| event["sequence"].as_str().unwrap().parse().unwrap();
        (0..events).map(|_| position(self.event())).collect()
    }

    fn interrupt(mut self) -> ExitStatus {
        let pid = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .unwrap()
                .success()
        );
        self.process.wait().unwrap()
    }
}

async fn put(service: &Service, token: &str, bio: &str) {
    let body = json!({"name": "John", "surname": "Doe", "bio": bio});
    let answer = service
        .send_json(Method::PUT, "/api/v1/users/profile", token, &body)
        .await;
    assert_eq!(answer.status, StatusCode::OK);
}

/// Waits until a request of the process was answered: by then it follows.
async fn events_until(service: &Service, token: &str, tail: &Tail) -> Value {
    for round in 0.. {
        put(service, token, &format!("is anybody there? {round}")).await;
        if let Ok(line) = tail
            .lines
            .recv_timeout(std::time::Duration::from_millis(500))
        {
            return serde_json::from_str(&line).unwrap();
        }
        assert!(round < 100, "nothing is printed");
    }
    unreachable!()
}

async fn follows(service: &Service, command: impl Fn(&[&str]) -> Command) {
    let token = service.token(DEMO_USER, "user");
    for round in 0..3 {
        put(service, &token, &format!("round {round}")).await;
    }
    let all = Tail::start(&mut command(&["--from", "1"]));
    assert_eq!(all.positions(4), [1, 2, 3, 4]);
    let some = Tail::start(&mut command(&["--from", "3"]));
    assert_eq!(some.positions(2), [3, 4]);
    // A position that is not there yet is waited for.
    let beyond = Tail::start(&mut command(&["--from", "7"]));
    let renames = Tail::start(&mut command(&[
        "--from=1",
        "--type=username-changed",
        "--type=user-registered",
    ]));
    for round in 3..7 {
        put(service, &token, &format!("round {round}")).await;
    }
    assert_eq!(all.positions(4), [5, 6, 7, 8]);
    assert_eq!(beyond.positions(2), [7, 8]);
    let body = json!({"newUsername": "another.name"});
    service
        .send_json(Method::PATCH, "/api/v1/users/username", &token, &body)
        .await;
    assert_eq!(renames.positions(2), [1, 9]);
    let event = all.event();
    assert_eq!(event["type"], "username-changed");
    assert_eq!(event["data"]["after"], "another.name");
    // Without a start, only what is new.
    let new = Tail::start(&mut command(&[]));
    let first = events_until(service, &token, &new).await;
    assert!(first["sequence"].as_str().unwrap().parse::<u64>().unwrap() > 9);
    for tail in [all, some, beyond, renames, new] {
        assert_eq!(tail.interrupt().code(), Some(0));
    }
}

#[tokio::test]
async fn beside_a_service_it_prints_what_its_ledger_gets() {
    let folder = Folder::new();
    let service = folder.start();
    follows(&service, |arguments| tail(&folder.data_dir(), arguments)).await;
    // It took no lock, and left nothing: the service stops and starts as ever.
    assert_eq!(service.stop().code(), Some(0));
    folder.start();
}

#[tokio::test]
async fn it_prints_what_the_stream_gets() {
    let nats = Nats::start();
    let folder = Folder::new();
    let mut published = command(&folder.data_dir());
    published.env("NATS_URL", nats.url());
    let service = folder.start_with(published);
    // It needs nothing of the service but the stream.
    let nowhere = folder.data_dir().join("nowhere");
    follows(&service, |arguments| {
        let mut tail = tail(&nowhere, arguments);
        tail.args(["--nats-url", &nats.url()]);
        tail
    })
    .await;
    assert!(!nowhere.exists());
}

#[tokio::test]
async fn it_prints_what_a_postgresql_ledger_gets() {
    let database = Postgres::shared().database().await;
    let folder = Folder::new();
    // Nothing is made in a database that has no ledger.
    let none = tail(&folder.data_dir(), &[])
        .env("DATABASE_URL", &database)
        .output()
        .unwrap();
    assert_eq!(none.status.code(), Some(2), "{none:?}");
    let mut shared = command(&folder.data_dir());
    shared.env("DATABASE_URL", &database);
    let service = folder.start_with(shared);
    follows(&service, |arguments| {
        let mut tail = tail(&folder.data_dir(), arguments);
        tail.env("DATABASE_URL", &database);
        tail
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_goes_and_comes_back_costs_no_event() {
    let mut nats = Nats::start();
    let folder = Folder::new();
    let mut published = command(&folder.data_dir());
    published.env("NATS_URL", nats.url());
    let service = folder.start_with(published);
    let token = service.token(DEMO_USER, "user");
    let mut following = tail(&folder.data_dir(), &["--from", "1"]);
    following.env("NATS_URL", nats.url());
    let tail = Tail::start(&mut following);
    assert_eq!(tail.positions(1), [1]);
    for round in 0..3 {
        put(&service, &token, &format!("with it {round}")).await;
        nats.kill();
        put(&service, &token, &format!("without it {round}")).await;
        nats.start_again();
        let next = 2 * (round + 1);
        assert_eq!(tail.positions(2), [next, next + 1]);
    }
    // One that starts while the broker is away waits for it.
    nats.kill();
    let late = Tail::start(&mut following);
    nats.start_again();
    assert_eq!(late.positions(7), [1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn what_has_left_the_stream_is_an_error_that_says_where_it_is() {
    let nats = Nats::start();
    let client = async_nats::connect(nats.url()).await.unwrap();
    let stream = async_nats::jetstream::new(client);
    let config = async_nats::jetstream::stream::Config {
        name: "PROFILES".to_owned(),
        subjects: vec!["profiles.v1.>".to_owned()],
        max_messages: 2,
        ..Default::default()
    };
    stream.create_stream(config).await.unwrap();
    let folder = Folder::new();
    let mut published = command(&folder.data_dir());
    published.env("NATS_URL", nats.url());
    let service = folder.start_with(published);
    let token = service.token(DEMO_USER, "user");
    let mut following = tail(&folder.data_dir(), &["--from", "5"]);
    let late = Tail::start(following.env("NATS_URL", nats.url()));
    for round in 0..4 {
        put(&service, &token, &format!("round {round}")).await;
    }
    assert_eq!(late.positions(1), [5]);
    let mut gone = tail(&folder.data_dir(), &["--from", "1"]);
    let gone = gone.env("NATS_URL", nats.url()).output().unwrap();
    assert_eq!(gone.status.code(), Some(2));
    let error = String::from_utf8_lossy(&gone.stderr);
    assert!(
        error.contains("position 1 is missing: the next event is 4"),
        "{error}"
    );
    assert!(
        error.contains("unset NATS_URL to read the ledger"),
        "{error}"
    );
    assert_eq!(gone.stdout, b"");
}

#[tokio::test]
async fn it_ends_in_peace_when_nobody_reads_any_more() {
    let folder = Folder::new();
    let service = folder.start();
    let token = service.token(DEMO_USER, "user");
    put(&service, &token, "x").await;
    for from in ["1", "1000"] {
        let mut command = tail(&folder.data_dir(), &["--from", from]);
        let (process, mut output) = spawn(command.stderr(Stdio::piped()));
        if from == "1" {
            output.read_exact(&mut [0; 1]).unwrap();
        }
        // Nothing more is printed: it has to notice by itself.
        drop(output);
        let ended = process.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    let folder = Folder::new();
    let types = format!("one of {}", events::UserEvent::TYPES.join(", "));
    for (arguments, reason) in [
        (&["--from", "0"][..], "the first is 1"),
        (&["--from", "-1"], "--from"),
        (&["--from", "1e3"], "the first is 1"),
        (&["--from", "18446744073709551616"], "the first is 1"),
        (&["--type", "photo_changed"], &types),
        (&["--nats-url", "http://x"], "NATS_URL cannot be used"),
        (&[], "cannot read the ledger"),
    ] {
        let refused = tail(&folder.data_dir(), arguments).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        let error = String::from_utf8_lossy(&refused.stderr);
        assert!(error.contains(reason), "{arguments:?}: {error}");
    }
    assert!(!folder.data_dir().exists(), "it makes nothing");
}
