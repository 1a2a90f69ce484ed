//! `profile-ledger replay`: history goes to another system, whole and in order.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use futures::StreamExt as _;
use ledger::test_servers::Nats;
use reqwest::Method;
use serde_json::Value;

use crate::rebuild::{Data, USERS, put, summary};
use crate::service::{DEADLINE, DEMO_USER, as_newcomer};

/// The lines of all segments, in order.
fn segments(folder: &Path) -> (Vec<PathBuf>, Vec<Value>) {
    let files = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = files
        .map(|file| file.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "ndjson")
        })
        .collect();
    files.sort_unstable();
    let mut lines = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let parsed = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let before = lines.len();
        lines.extend(parsed);
        let first = lines[before]["sequence"].as_str().unwrap();
        assert!(
            file.ends_with(format!("events-{first}.ndjson")),
            "{}",
            file.display()
        );
    }
    (files, lines)
}

fn positions(lines: &[Value]) -> Vec<u64> {
    let position = |line: &Value| line["sequence"].as_str().unwrap().parse().unwrap();
    lines.iter().map(position).collect()
}

#[tokio::test]
async fn history_goes_to_a_folder_and_on_after_a_kill() {
    let data = Data::new(None, USERS);
    let to = data.folder.data_dir().join("copy");
    let replay = |arguments: &[&str]| {
        let mut command = data.command("replay");
        command
            .arg("--to")
            .arg(&to)
            .args(["--segment-events", "700"])
            .args(arguments);
        command
    };
    // Beside a running service, which has the ledger open.
    let service = data.start("");
    let mut killed = replay(&[])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let some = async {
        while !to.join("events-00000000000000000701.ndjson").exists() {
            assert_eq!(killed.try_wait().unwrap(), None, "it ended too early");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, some).await.unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    let (whole, _) = segments(&to);
    let times: Vec<_> = whole
        .iter()
        .map(|file| file.metadata().unwrap().modified().unwrap())
        .collect();

    let output = replay(&["--json"]).output().unwrap();
    let head = USERS + 1;
    assert_eq!(summary(&output)["until"], head);
    let (files, lines) = segments(&to);
    assert!(positions(&lines).into_iter().eq(1..=head));
    assert!(files.len() >= 8, "{files:?}");
    for (file, time) in whole.iter().zip(times) {
        assert_eq!(
            file.metadata().unwrap().modified().unwrap(),
            time,
            "{} was written again",
            file.display()
        );
    }
    // And on, when there is more.
    let token = service.token(DEMO_USER, "user");
    put(&service, &token, "later").await;
    let more = replay(&["--json"]).output().unwrap();
    assert_eq!(summary(&more)["events"], 1);
    let (_, lines) = segments(&to);
    assert!(positions(&lines).into_iter().eq(1..=head + 1));
    // The same bytes as the export of the service.
    let auditor = service.token("auditor", "auditor");
    let export = service
        .request(Method::GET, "/api/v1/audit/events")
        .bearer_auth(&auditor)
        .header("accept", "application/x-ndjson");
    let export = export.send().await.unwrap().text().await.unwrap();
    let (files, _) = segments(&to);
    let copy: String = files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    assert!(copy == export, "an envelope is another");

    let other = replay(&["--type", "user-registered"]).output().unwrap();
    assert_eq!(other.status.code(), Some(2));
    let error = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(error.contains("choose another folder"), "{error}");
}

#[tokio::test]
async fn a_full_disk_ends_a_replay_and_what_has_a_name_is_whole() {
    let data = Data::new(None, 3_000);
    let to = data.folder.data_dir().join("copy");
    let replay = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        as_newcomer(&mut command)
            .args(arguments)
            .arg("replay")
            .arg("--to")
            .arg(&to);
        command
            .env("DATA_DIR", data.folder.data_dir())
            .output()
            .unwrap()
    };
    let program = env!("CARGO_BIN_EXE_profile-ledger");
    let limited = ["--fsize=1000000", "env", "--ignore-signal=XFSZ", program];
    let full = replay("prlimit", &limited);
    assert_eq!(full.status.code(), Some(2), "{full:?}");
    let error = String::from_utf8_lossy(&full.stderr).into_owned();
    assert!(
        error.contains("run the command again to continue"),
        "{error}"
    );
    assert_eq!(segments(&to).1.len(), 0);
    let again = replay(program, &[]);
    assert!(again.status.success(), "{again:?}");
    assert!(positions(&segments(&to).1).into_iter().eq(1..=3_000));
}

#[tokio::test]
async fn history_is_chosen_by_position_type_and_user() {
    let data = Data::new(None, 20);
    let service = data.start("");
    let token = service.token(DEMO_USER, "user");
    for n in 0..3 {
        put(&service, &token, &format!("{n}")).await;
    }
    let replayed = |name: &str, arguments: &[&str]| {
        let to = data.folder.data_dir().join(name);
        let output = data
            .command("replay")
            .arg("--to")
            .arg(&to)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        positions(&segments(&to).1)
    };
    assert_eq!(replayed("all", &[]), (1..=24).collect::<Vec<_>>());
    assert_eq!(
        replayed("some", &["--from", "5", "--until", "7"]),
        [5, 6, 7]
    );
    assert_eq!(
        replayed("types", &["--type", "profile-updated"]),
        [22, 23, 24]
    );
    assert_eq!(
        replayed("user", &["--user", DEMO_USER, "--until", "23"]),
        [21, 22, 23]
    );
    assert_eq!(replayed("none", &["--from", "25"]), Vec::<u64>::new());
    for bad in [
        &["--type", "soul-sold", "--to", "x"][..],
        &["--from", "0", "--to", "x"],
        &["--to", "x", "--nats", "y"],
        &["--nats", "profiles.v1.p00.user-registered"],
        &["--nats", "profiles.v1"],
        &["--nats", "copy.>"],
        &["--nats", "$JS.API.INFO"],
        &[],
    ] {
        let refused = data.command("replay").args(bad).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{bad:?}");
    }
}

/// Somebody who only listens acknowledges nothing: what no stream keeps was not handed over.
#[tokio::test]
async fn a_subject_that_is_heard_and_kept_by_no_stream_is_no_target() {
    let data = Data::new(None, 3_000);
    let nats = Nats::start();
    let client = async_nats::connect(nats.url()).await.unwrap();
    let mut heard = client.subscribe("copy.profiles").await.unwrap();
    client.flush().await.unwrap();
    let mut replay = data.command("replay");
    replay
        .args(["--nats", "copy.profiles"])
        .env("NATS_URL", nats.url());
    let replayed = tokio::task::spawn_blocking(move || replay.output().unwrap());
    let first = tokio::time::timeout(DEADLINE, heard.next()).await.unwrap();
    assert!(first.is_some());
    let output = tokio::time::timeout(DEADLINE, replayed)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    for told in [
        "nothing is acknowledged",
        "position 1 was not acknowledged",
        "is there a stream that takes copy.profiles",
    ] {
        assert!(error.contains(told), "{error}");
    }
    // No more was sent than may be without an acknowledgement.
    let mut count = 1;
    let rest = async {
        while heard.next().await.is_some() {
            count += 1;
        }
    };
    client.drain().await.unwrap();
    tokio::time::timeout(DEADLINE, rest).await.unwrap();
    assert!(count <= 512, "{count}");
}

#[tokio::test]
async fn history_goes_to_a_stream_of_nats_acknowledged() {
    let data = Data::new(None, 2_000);
    let nats = Nats::start();
    let replay = |arguments: &[&str]| {
        let mut command = data.command("replay");
        command
            .args(["--nats", "copy.profiles"])
            .args(arguments)
            .env("NATS_URL", nats.url());
        command.output().unwrap()
    };
    let nobody = replay(&[]);
    assert_eq!(nobody.status.code(), Some(2), "{nobody:?}");
    let error = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(
        error.contains("nothing is acknowledged") && error.contains("stream"),
        "{error}"
    );

    let away = data
        .command("replay")
        .args([
            "--nats",
            "copy.profiles",
            "--nats-url",
            "nats://127.0.0.1:1",
        ])
        .output()
        .unwrap();
    assert_eq!(away.status.code(), Some(2), "{away:?}");

    let client = async_nats::connect(nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let config = async_nats::jetstream::stream::Config {
        name: "COPY".to_owned(),
        subjects: vec!["copy.>".to_owned()],
        ..Default::default()
    };
    let stream = jetstream.create_stream(config).await.unwrap();
    let output = replay(&["--json", "--from", "11"]);
    assert_eq!(summary(&output)["events"], 1_990);
    let consumer = stream
        .create_consumer(async_nats::jetstream::consumer::pull::OrderedConfig::default())
        .await
        .unwrap();
    let messages = consumer.messages().await.unwrap().take(1_990);
    let read = messages.map(|message| {
        let message = message.unwrap();
        let headers = message.headers.clone().unwrap();
        let event = ledger::message::from_message(&headers, &message.payload).unwrap();
        event.position
    });
    let read = tokio::time::timeout(DEADLINE, read.collect::<Vec<_>>())
        .await
        .unwrap();
    assert!(read.into_iter().eq(11..=2_000));
}
