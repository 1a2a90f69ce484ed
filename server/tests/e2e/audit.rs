//! Histories over real sockets: streams that are cut and go on, exports whose readers go away, and who
//! looked at whom.

use std::fmt::Write as _;
use std::time::Duration;

use ledger::test_servers::postgres::Postgres;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::service::{Answer, DEADLINE, DEMO_USER, Folder, Service, command};

/// Users of a large ledger, each with a registration of 3 KB: far more than sockets hold.
const USERS: u64 = 20_000;

/// A ledger of many large events, of which none is folded yet.
fn large() -> Folder {
    let folder = Folder::new();
    let bio = "\u{1f600}".repeat(500);
    let mut lines = String::new();
    for n in 0..USERS {
        writeln!(
            lines,
            r#"{{"username":"user{n}","name":"N","surname":"S","bio":"{bio}"}}"#
        )
        .unwrap();
    }
    let file = folder.file("users.ndjson", lines.as_bytes());
    let mut import = command(&folder.data_dir());
    let imported = import.arg("import").arg(&file).output().unwrap();
    assert!(imported.status.success(), "{imported:?}");
    folder
}

/// Waits until the documents of a large ledger are folded: the memory for that is not what its readers cost.
async fn folded(service: &Service) {
    let token = service.token(DEMO_USER, "user");
    let path = format!("/api/v1/users/profile?minPosition={}", USERS + 1);
    let folded = async { while service.get(&path, &token).await.status != StatusCode::OK {} };
    tokio::time::timeout(DEADLINE, folded)
        .await
        .expect("all are folded");
}

/// Forgets how much memory the process has had, and says how much it has, in KiB (proc(5), `clear_refs`).
fn forget_peak(service: &Service) -> u64 {
    std::fs::write(format!("/proc/{}/clear_refs", service.pid()), "5").unwrap();
    peak_kib(service)
}

/// The most memory the process has had, in KiB.
fn peak_kib(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().trim_end_matches(" kB");
    peak.parse().unwrap()
}

async fn put(service: &Service, bio: &str) -> Answer {
    let token = service.token(DEMO_USER, "user");
    let body = json!({"name": "John", "surname": "Doe", "bio": bio});
    let path = "/api/v1/users/profile";
    let answer = service.send_json(Method::PUT, path, &token, &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer
}

/// A stream of events that is being read.
struct Stream {
    response: Response,
    messages: std::vec::IntoIter<String>,
    text: Vec<u8>,
}

impl Stream {
    /// From where the query says, or after the last event that was seen.
    async fn open(service: &Service, token: &str, query: &str, last: Option<u64>) -> Self {
        let path = format!("/api/v1/events/stream{query}");
        let mut request = service.request(Method::GET, &path).bearer_auth(token);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let mut stream = Self {
            response,
            messages: Vec::new().into_iter(),
            text: Vec::new(),
        };
        let begin = stream.message().await.unwrap();
        assert!(begin.contains("retry: "), "{begin}");
        stream
    }

    /// The next message; `None` when the stream has ended or its connection is lost.
    async fn message(&mut self) -> Option<String> {
        loop {
            if let Some(message) = self.messages.next() {
                return Some(message);
            }
            let chunk = tokio::time::timeout(DEADLINE, self.response.chunk()).await;
            let chunk = chunk.expect("something before the deadline").ok()??;
            self.text.extend(chunk);
            // What comes after the last empty line is no message yet.
            let text = std::mem::take(&mut self.text);
            let end = text.windows(2).rposition(|bytes| bytes == b"\n\n");
            let (whole, part) = text.split_at(end.map_or(0, |end| end + 2));
            self.text = part.to_vec();
            let whole = std::str::from_utf8(whole).unwrap();
            let messages = whole.split_terminator("\n\n").map(str::to_owned);
            self.messages = messages.collect::<Vec<_>>().into_iter();
        }
    }

    /// The next event: its position and its envelope.
    async fn event(&mut self) -> Option<(u64, Value)> {
        loop {
            let message = self.message().await?;
            let line = |name| message.lines().find_map(|line| line.strip_prefix(name));
            if let (Some(id), Some(data)) = (line("id: "), line("data: ")) {
                return Some((id.parse().unwrap(), serde_json::from_str(data).unwrap()));
            }
        }
    }
}

#[tokio::test]
async fn a_stream_goes_on_after_its_server_was_killed_without_a_gap_or_a_repetition() {
    let folder = Folder::new();
    let service = folder.start();
    let token = service.token("indexer", "service");
    let mut stream = Stream::open(&service, &token, "?after=0", None).await;
    assert_eq!(stream.event().await.unwrap().0, 1);
    put(&service, "first").await;
    let (position, event) = stream.event().await.unwrap();
    assert_eq!(
        (position, &event["data"]["bio"]["after"]),
        (2, &json!("first"))
    );
    service.kill();
    assert!(stream.event().await.is_none());

    let service = folder.start();
    for bio in ["missed 1", "missed 2"] {
        put(&service, bio).await;
    }
    let mut stream = Stream::open(&service, &token, "?after=0", Some(position)).await;
    put(&service, "live").await;
    for (expected, bio) in (3..).zip(["missed 1", "missed 2", "live"]) {
        let (position, event) = stream.event().await.unwrap();
        let bio = (expected, json!(bio));
        assert_eq!((position, event["data"]["bio"]["after"].clone()), bio);
    }
}

#[tokio::test]
async fn slow_readers_are_cut_lose_nothing_and_cost_little_memory() {
    let folder = large();
    let service = folder.start();
    let token = service.token("indexer", "service");
    folded(&service).await;
    let before = forget_peak(&service);
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = Stream::open(&service, &token, "?after=0", None).await;
        assert_eq!(stream.event().await.unwrap().0, 1);
        streams.push(stream);
    }
    // Longer than a reader may leave what it was given. Others are served all the while.
    tokio::time::sleep(Duration::from_secs(11)).await;
    put(&service, "meanwhile").await;
    let head = USERS + 2;
    let mut lasts = Vec::new();
    for mut stream in streams {
        let mut last = 1;
        while let Some((position, _)) = stream.event().await {
            assert_eq!(position, last + 1);
            last = position;
        }
        assert!(last < head, "the reader was not cut");
        lasts.push(last);
    }
    let grown = peak_kib(&service).saturating_sub(before);
    assert!(grown < 96 * 1024, "20 readers cost {grown} KiB");
    let mut stream = Stream::open(&service, &token, "?after=0", Some(lasts[0])).await;
    for expected in lasts[0] + 1..=head {
        assert_eq!(stream.event().await.unwrap().0, expected);
    }
    assert!(
        folder
            .log()
            .contains("A slow client of the event stream was disconnected")
    );
}

async fn export(service: &Service, token: &str, query: &str) -> Response {
    let path = format!("/api/v1/audit/events{query}");
    let request = service.request(Method::GET, &path).bearer_auth(token);
    let request = request.header("accept", "application/x-ndjson");
    request.send().await.unwrap()
}

#[tokio::test]
async fn exports_whose_readers_go_away_end_and_a_whole_one_takes_little_memory() {
    let folder = large();
    let service = folder.start();
    let token = service.token("auditor-1", "auditor");
    folded(&service).await;
    // As many as there are places for; more are refused.
    let mut open = Vec::new();
    loop {
        let mut response = export(&service, &token, "").await;
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            break;
        }
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.chunk().await.unwrap().is_some());
        open.push(response);
    }
    assert!(!open.is_empty());
    drop(open);
    let freed = async {
        loop {
            let response = export(&service, &token, "").await;
            if response.status() == StatusCode::OK {
                return response;
            }
        }
    };
    let freed = tokio::time::timeout(DEADLINE, freed).await;
    let mut response = freed.expect("places of readers that have gone are free again");
    let before = forget_peak(&service);
    let (mut rest, mut position, mut bytes) = (Vec::new(), 0, 0);
    while let Some(chunk) = response.chunk().await.unwrap() {
        bytes += chunk.len();
        rest.extend(chunk);
        let mut lines: Vec<_> = rest.split(|byte| *byte == b'\n').collect();
        let part = lines.pop().unwrap().to_vec();
        for line in lines {
            let event: Value = serde_json::from_slice(line).unwrap();
            position += 1;
            assert_eq!(event["sequence"], format!("{position:020}"));
        }
        rest = part;
    }
    assert!(rest.is_empty());
    assert_eq!(position, USERS + 1);
    let grown = peak_kib(&service).saturating_sub(before);
    let sent = bytes / 1024;
    assert!(
        grown < 16 * 1024 && sent > 50 * 1024,
        "{grown} KiB for {sent} KiB"
    );
}

#[tokio::test]
async fn open_streams_do_not_keep_the_service_from_stopping() {
    let folder = Folder::new();
    let service = folder.start();
    let token = service.token("indexer", "service");
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(Stream::open(&service, &token, "", None).await);
    }
    assert_eq!(service.stop().code(), Some(0));
    for stream in &mut streams {
        assert!(stream.event().await.is_none());
    }
    let log = folder.log();
    assert!(log.contains("Stopped"), "{log}");
    assert!(!log.contains("still open at the deadline"), "{log}");
}

#[tokio::test]
async fn who_looked_at_whom_is_kept_over_a_kill_and_not_logged() {
    let folder = Folder::new();
    let service = folder.start();
    let token = service.token("auditor-1", "auditor");
    let history = format!("/api/v1/audit/users/{DEMO_USER}");
    assert_eq!(service.get(&history, &token).await.status, StatusCode::OK);
    let path = "/api/v1/audit/events?actor=secret.actor";
    assert_eq!(service.get(path, &token).await.status, StatusCode::OK);
    service.kill();
    let service = folder.start();
    let listed = service.get("/api/v1/audit/reads", &token).await;
    let items = listed.data()["items"].as_array().unwrap();
    let whom: Vec<_> = items
        .iter()
        .map(|item| (&item["userId"], &item["query"]))
        .collect();
    let wanted = [
        (&json!(DEMO_USER), &json!("")),
        (&json!(null), &json!("actor=secret.actor")),
        (&json!(null), &json!("")),
    ];
    assert_eq!(whom, wanted);
    assert_eq!(service.stop().code(), Some(0));
    let log = folder.log();
    for secret in ["secret.actor", DEMO_USER, "auditor-1"] {
        assert!(!log.contains(secret), "{secret} was logged:\n{log}");
    }
}

#[tokio::test]
async fn on_postgresql_what_one_process_appends_another_streams_and_all_record_in_one_trail() {
    let database = Postgres::shared().database().await;
    let folder = Folder::new();
    let start = |role: &str| {
        let mut command = command(&folder.data_dir());
        command.arg(role).env("DATABASE_URL", &database);
        folder.start_with(command)
    };
    let commands = start("command-api");
    let queries = [start("query-api"), start("query-api")];
    let token = commands.token("auditor-1", "auditor");
    let mut streams = Vec::new();
    for query in &queries {
        streams.push(Stream::open(query, &token, "?after=0", None).await);
    }
    for n in 0..20 {
        put(&commands, &format!("round {n}")).await;
    }
    for stream in &mut streams {
        for expected in 1..=21 {
            assert_eq!(stream.event().await.unwrap().0, expected);
        }
    }
    for (query, version) in queries.iter().zip([3, 21]) {
        let path = format!("/api/v1/audit/users/{DEMO_USER}?atVersion={version}");
        let answer = query.get(&path, &token).await;
        let bio = format!("round {}", version - 2);
        assert_eq!(answer.data()["document"]["bio"], json!(bio));
    }
    let listed = queries[0].get("/api/v1/audit/reads", &token).await;
    let numbers = listed.data()["items"].as_array().unwrap().iter();
    let numbers: Vec<_> = numbers.map(|item| item["number"].clone()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5].map(|number| json!(number)));
}

#[tokio::test]
async fn a_stream_stays_open_while_its_database_is_away_and_misses_nothing() {
    let postgres = Postgres::start();
    let database = postgres.database().await;
    let folder = Folder::new();
    let mut whole = command(&folder.data_dir());
    whole.env("DATABASE_URL", &database);
    let service = folder.start_with(whole);
    let token = service.token("indexer", "service");
    let mut stream = Stream::open(&service, &token, "", None).await;
    put(&service, "before").await;
    assert_eq!(stream.event().await.unwrap().0, 2);
    postgres.kill();
    let auditor = service.token("auditor-1", "auditor");
    let refused = service.get("/api/v1/audit/events", &auditor).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    postgres.start_again();
    let body = json!({"name": "John", "surname": "Doe", "bio": "after"});
    let user = service.token(DEMO_USER, "user");
    let healing = async {
        let path = "/api/v1/users/profile";
        while !service
            .send_json(Method::PUT, path, &user, &body)
            .await
            .status
            .is_success()
        {}
    };
    let healed = tokio::time::timeout(DEADLINE, healing).await;
    healed.expect("it heals by itself");
    let (position, event) = stream.event().await.unwrap();
    let bio = &event["data"]["bio"]["after"];
    assert_eq!((position, bio), (3, &json!("after")));
}
