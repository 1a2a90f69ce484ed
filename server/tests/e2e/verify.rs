//! `profile-ledger verify`: what was tampered with is named; what was not is confirmed.

use std::path::Path;
use std::process::Output;

use async_nats::jetstream;
use ledger::test_servers::Nats;
use ledger::test_servers::postgres::Postgres;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

use crate::service::{DEADLINE, DEMO_USER, Folder, Service, command, send};

/// Changes the demo user's profile so often, and waits until that is signed.
pub(crate) async fn work(service: &Service, changes: u64) -> String {
    let token = service.token(DEMO_USER, "user");
    let mut position = String::new();
    for n in 0..changes {
        let body = json!({"name": "John", "surname": "Doe", "bio": format!("change {n}")});
        let answer = service
            .send_json(Method::PUT, "/api/v1/users/profile", &token, &body)
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.header("ledger-position").clone_into(&mut position);
    }
    let path = format!("/api/v1/users/profile?minPosition={position}");
    assert_eq!(service.get(&path, &token).await.status, StatusCode::OK);
    checkpoint(service, &position).await
}

/// Changes the demo user's username.
pub(crate) async fn rename(service: &Service, username: &str) {
    let token = service.token(DEMO_USER, "user");
    let body = json!({"newUsername": username});
    let answer = service
        .send_json(Method::PATCH, "/api/v1/users/username", &token, &body)
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

/// The newest checkpoint, once it is over a position.
pub(crate) async fn checkpoint(service: &Service, position: &str) -> String {
    let token = service.token("an-auditor", "auditor");
    let signed = async {
        loop {
            let request = service
                .request(
                    Method::GET,
                    &format!("/api/v1/log/checkpoint?minPosition={position}"),
                )
                .bearer_auth(&token);
            let answer = request.send().await.unwrap();
            if answer.status() == StatusCode::OK {
                return answer.text().await.unwrap();
            }
        }
    };
    tokio::time::timeout(DEADLINE, signed)
        .await
        .expect("it is signed")
}

async fn key(service: &Service) -> String {
    let token = service.token("an-auditor", "auditor");
    let request = service
        .request(Method::GET, "/api/v1/log/key")
        .bearer_auth(&token);
    request
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap()
        .trim()
        .to_owned()
}

pub(crate) fn verify(
    data_dir: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (i32, Value) {
    let mut verify = command(data_dir);
    verify.args(["verify", "--json"]).args(arguments);
    verify.envs(environment.iter().copied());
    let Output {
        status,
        stdout,
        stderr,
    } = verify.output().unwrap();
    let error = String::from_utf8_lossy(&stderr).into_owned();
    let report = serde_json::from_slice(&stdout).unwrap_or(Value::String(error));
    (status.code().unwrap(), report)
}

#[track_caller]
fn names(found: &(i32, Value), position: u64, message: &str) {
    let (code, report) = found;
    assert_eq!(*code, 1, "{report}");
    assert_eq!(report["fault"]["firstPosition"], position, "{report}");
    let said = report["fault"]["message"].as_str().unwrap();
    assert!(said.contains(message), "{said}");
}

async fn in_sqlite(path: &Path, statements: &[String]) {
    let url = format!("sqlite://{}", path.display());
    let mut stranger = SqliteConnection::connect(&url).await.unwrap();
    for statement in statements {
        sqlx::raw_sql(AssertSqlSafe(statement.clone()))
            .execute(&mut stranger)
            .await
            .unwrap();
    }
}

/// Without what would refuse it.
fn unguarded(statement: &str) -> Vec<String> {
    let mut statements: Vec<String> = [
        "events_are_never_changed",
        "events_are_never_deleted",
        "events_come_in_order",
    ]
    .iter()
    .map(|trigger| format!("DROP TRIGGER IF EXISTS {trigger}"))
    .collect();
    statements.push(statement.to_owned());
    statements
}

#[tokio::test]
async fn an_untouched_ledger_is_confirmed_beside_the_running_service_and_without_it() {
    let folder = Folder::new();
    let service = folder.start();
    let note = work(&service, 300).await;
    for _ in 0..2 {
        let (code, report) = verify(&folder.data_dir(), &[], &[]);
        assert_eq!(code, 0, "{report}");
        assert_eq!(report["events"], 301);
        assert_eq!(report["confirmed"], 301);
        assert_eq!(report["documents"], 1);
    }
    let kept = folder.file("checkpoint", note.as_bytes());
    let key = key(&service).await;
    service.stop();
    let kept = kept.to_str().unwrap();
    let arguments = ["--checkpoint", kept, "--public-key", &key];
    let (code, report) = verify(&folder.data_dir(), &arguments, &[]);
    assert_eq!(code, 0, "{report}");
    let told = command(&folder.data_dir()).arg("verify").output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.starts_with("301 events, root "), "{told}");
    assert!(told.ends_with("Nothing is wrong.\n"), "{told}");

    // Whoever takes back what was signed last and what counts it leaves a log as it once was; but not for who kept it.
    let log = folder.data_dir().join("log.db");
    let forgotten = "DROP TRIGGER checkpoints_are_never_deleted; DROP TRIGGER head_goes_up_by_one; \
        DELETE FROM checkpoints WHERE size = 301; UPDATE head SET number = number - 1";
    in_sqlite(&log, &[forgotten.to_owned()]).await;
    assert_eq!(verify(&folder.data_dir(), &[], &[]).0, 0);
    let found = verify(&folder.data_dir(), &arguments, &[]);
    names(&found, 301, "not among the stored ones");
}

#[tokio::test]
async fn whatever_is_changed_in_the_files_is_named() {
    let folder = Folder::new();
    let service = folder.start();
    work(&service, 8).await;
    service.stop();
    let good = folder.data_dir();
    let cases = [
        (
            "ledger.db",
            "UPDATE events SET envelope = CAST(replace(CAST(envelope AS TEXT), 'change 3', 'change X') AS BLOB) WHERE position = 5",
            5,
            "not the one that was hashed",
        ),
        (
            "ledger.db",
            "UPDATE events SET leaf_hash = zeroblob(32) WHERE position = 4",
            4,
            "not the one that was hashed",
        ),
        (
            "ledger.db",
            "DELETE FROM events WHERE position = 6",
            6,
            "missing",
        ),
        (
            "ledger.db",
            "DELETE FROM events WHERE position = 9",
            9,
            "missing",
        ),
        (
            "ledger.db",
            "DELETE FROM events WHERE position >= 8; DROP TRIGGER ledger_head_never_goes_back; UPDATE ledger_head SET position = 7",
            8,
            "missing",
        ),
        (
            "ledger.db",
            "UPDATE events SET position = -1 WHERE position = 3; UPDATE events SET position = 3 WHERE position = 4; UPDATE events SET position = 4 WHERE position = -1",
            3,
            "contradicts",
        ),
        (
            "ledger.db",
            "UPDATE events SET event_type = 'photo-changed' WHERE position = 2",
            2,
            "contradicts",
        ),
        (
            "read-model.db",
            "UPDATE users SET document = replace(document, 'Doe', 'Roe')",
            9,
            "differs from the fold",
        ),
        ("read-model.db", "DELETE FROM users", 1, "missing"),
        (
            "log.db",
            "DROP TRIGGER checkpoints_are_never_changed; UPDATE checkpoints SET note = note || note WHERE size = 9",
            9,
            "checkpoint",
        ),
    ];
    for (file, statement, position, message) in cases {
        let copy = Folder::new();
        let data_dir = copy.data_dir();
        std::fs::create_dir(&data_dir).unwrap();
        for entry in std::fs::read_dir(&good).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::copy(&path, data_dir.join(path.file_name().unwrap())).unwrap();
            }
        }
        in_sqlite(&data_dir.join(file), &unguarded(statement)).await;
        names(&verify(&data_dir, &[], &[]), position, message);
    }
}

/// Makes the stream anew with another body in one of its messages, as somebody who may do everything could.
async fn replace_message(context: &jetstream::Context, at: u64) {
    let stream = context.get_stream("PROFILES").await.unwrap();
    let mut messages = Vec::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        messages.push(stream.get_raw_message(sequence).await.unwrap());
    }
    context.delete_stream("PROFILES").await.unwrap();
    let config = jetstream::stream::Config {
        name: "PROFILES".to_owned(),
        subjects: vec!["profiles.v1.>".to_owned()],
        allow_direct: true,
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    for message in messages {
        let mut payload = message.payload.clone();
        if message.sequence == at {
            let text = String::from_utf8(payload.to_vec()).unwrap();
            payload = text.replace("change", "chance").into();
        }
        let published = context
            .publish_with_headers(message.subject, message.headers, payload)
            .await;
        published.unwrap().await.unwrap();
    }
}

#[tokio::test]
async fn on_postgresql_and_nats_the_stream_is_compared_too() {
    let database = Postgres::shared().database().await;
    let nats = Nats::start();
    let folder = Folder::new();
    let mut all = command(&folder.data_dir());
    all.env("DATABASE_URL", &database)
        .env("NATS_URL", nats.url());
    let service = folder.start_with(all);
    work(&service, 5).await;
    let published = async {
        loop {
            let ready = send(service.request(Method::GET, "/readyz")).await.body;
            if ready["published"] == 6 {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, published)
        .await
        .expect("it is published");
    let url = nats.url();
    let environment = [
        ("DATABASE_URL", database.as_str()),
        ("NATS_URL", url.as_str()),
    ];
    let (code, report) = verify(&folder.data_dir(), &[], &environment);
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["messages"], 6);

    service.stop();
    let client = async_nats::connect(nats.url()).await.unwrap();
    replace_message(&async_nats::jetstream::new(client), 4).await;
    names(
        &verify(&folder.data_dir(), &[], &environment),
        4,
        "the message in the stream differs from the event",
    );

    let mut owner = PgConnection::connect(&database).await.unwrap();
    sqlx::raw_sql(
        "ALTER TABLE ledger.events DISABLE TRIGGER ALL; \
         UPDATE ledger.events SET envelope = convert_to(replace(convert_from(envelope, 'UTF8'), 'change 1', 'change X'), 'UTF8'), \
         leaf_hash = sha256('\\x00'::bytea || convert_to(replace(convert_from(envelope, 'UTF8'), 'change 1', 'change X'), 'UTF8')) \
         WHERE position = 3",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    // Hashed again by somebody who knows how: the user's next event gives it away, or a checkpoint before.
    let (code, report) = verify(&folder.data_dir(), &[], &environment);
    assert_eq!(code, 1, "{report}");
    let first = report["fault"]["firstPosition"].as_u64().unwrap();
    assert!((1..=4).contains(&first), "{report}");
}

#[tokio::test]
async fn an_export_is_verified_with_nothing_but_the_public_key() {
    let folder = Folder::new();
    let service = folder.start();
    let note = work(&service, 20).await;
    let key = key(&service).await;
    let auditor = service.token("an-auditor", "auditor");
    let request = service
        .request(Method::GET, "/api/v1/audit/events")
        .header("accept", "application/x-ndjson")
        .bearer_auth(&auditor);
    let export = request.send().await.unwrap().text().await.unwrap();
    service.stop();
    let nothing = Folder::new();
    let checkpoint = nothing.file("checkpoint", note.as_bytes());
    let verify_export = |lines: &str| {
        let export = nothing.file("export.ndjson", lines.as_bytes());
        let export = export.to_str().unwrap();
        let checkpoint = checkpoint.to_str().unwrap();
        let arguments = [
            "--export",
            export,
            "--checkpoint",
            checkpoint,
            "--public-key",
            &key,
        ];
        verify(&nothing.data_dir(), &arguments, &[])
    };
    let (code, report) = verify_export(&export);
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["confirmed"], 21);

    let lines: Vec<&str> = export.lines().collect();
    let joined = |lines: &[&str]| lines.join("\n") + "\n";
    let mut dropped = lines.clone();
    dropped.remove(6);
    names(
        &verify_export(&joined(&dropped)),
        7,
        "missing or at the wrong position",
    );
    let mut swapped = lines.clone();
    swapped.swap(3, 9);
    names(
        &verify_export(&joined(&swapped)),
        4,
        "at the wrong position",
    );
    names(&verify_export(&joined(&lines[..20])), 21, "missing");
    let added = lines
        .iter()
        .chain(&lines[20..])
        .copied()
        .collect::<Vec<_>>();
    names(&verify_export(&joined(&added)), 22, "not signed");
    let changed = export.replace("change 11", "change XX");
    let (code, report) = verify_export(&changed);
    assert_eq!(code, 1);
    let first = report["fault"]["firstPosition"].as_u64().unwrap();
    assert!((13..=15).contains(&first), "{report}");
    names(&verify_export("\n"), 1, "envelope");
    names(&verify_export("{\"a\":1}\n"), 1, "envelope");
}

#[tokio::test]
async fn a_signed_export_brings_its_proof_and_a_changed_line_is_named_exactly() {
    let folder = Folder::new();
    let service = folder.start();
    work(&service, 20).await;
    let out = Folder::new();
    std::fs::create_dir(out.data_dir()).unwrap();
    let file = out.data_dir().join("all.ndjson");
    let exported = command(&folder.data_dir())
        .args(["export", "--signed", "--json", "--out"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(exported.status.success(), "{exported:?}");
    let manifest: Value = serde_json::from_slice(&exported.stdout).unwrap();
    assert_eq!(
        (&manifest["count"], &manifest["last"]),
        (&21.into(), &21.into())
    );
    let key = key(&service).await;
    assert_eq!(manifest["publicKey"], key);
    service.stop();

    let checkpoint = file.with_extension("ndjson.checkpoint");
    let arguments = [
        "--export",
        file.to_str().unwrap(),
        "--checkpoint",
        checkpoint.to_str().unwrap(),
        "--public-key",
        &key,
    ];
    let nothing = Folder::new();
    let (code, report) = verify(&nothing.data_dir(), &arguments, &[]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["root"], manifest["root"]);

    let lines = std::fs::read_to_string(&file).unwrap();
    for (position, change) in [(9, "change 7"), (21, "change 19"), (2, "change 0")] {
        let changed = lines.replacen(change, "changed", 1);
        std::fs::write(&file, changed).unwrap();
        let found = verify(&nothing.data_dir(), &arguments, &[]);
        names(&found, position, "differs from the signed one");
    }
    std::fs::write(&file, &lines).unwrap();
    let hashes = file.with_extension("ndjson.hashes");
    let mut other = std::fs::read(&hashes).unwrap();
    other[40] ^= 1;
    std::fs::write(&hashes, other).unwrap();
    let (code, report) = verify(&nothing.data_dir(), &arguments, &[]);
    assert_eq!(code, 2);
    assert!(
        report.as_str().unwrap().contains("other hashes"),
        "{report}"
    );
}

#[test]
fn what_cannot_be_verified_is_an_error_of_its_own() {
    let folder = Folder::new();
    let (code, report) = verify(&folder.data_dir(), &[], &[]);
    assert_eq!(code, 2, "{report}");
    assert!(
        report.as_str().unwrap().contains("cannot read the ledger"),
        "{report}"
    );
    assert!(!folder.data_dir().exists(), "nothing is made");
    for arguments in [
        &["--export", "x"][..],
        &["--public-key", "x"],
        &["--export", "x", "--checkpoint", "y"],
        &["--checkpoint", "no-such-file", "--public-key", "a+b+c"],
    ] {
        let (code, report) = verify(&folder.data_dir(), arguments, &[]);
        assert_eq!(code, 2, "{report}");
    }
}
