//! The same service with a broker: the ledger is published, and documents are folded from the stream.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use async_nats::jetstream;
use ledger::store::History;
use ledger::store::sqlite::SqliteStore;
use ledger::test_servers::nats::Nats;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::service::{self, Answer, DEADLINE, DEMO_USER, Folder, Service, send};

fn start(folder: &Folder, nats: &Nats) -> Service {
    folder.start_with(with_broker(&folder.data_dir(), nats))
}

fn with_broker(data_dir: &Path, nats: &Nats) -> Command {
    let mut command = service::command(data_dir);
    command.env("NATS_URL", nats.url());
    command
}

async fn put(service: &Service, token: &str, bio: &str) -> Answer {
    let body = json!({"name": "John", "surname": "Doe", "bio": bio});
    service
        .send_json(Method::PUT, "/api/v1/users/profile", token, &body)
        .await
}

async fn read_back(service: &Service, token: &str, answer: &Answer) {
    let position = answer.header("ledger-position");
    let path = format!("/api/v1/users/profile?minPosition={position}");
    assert_eq!(service.get(&path, token).await.data(), answer.data());
}

/// Waits until `/readyz` says something.
async fn readiness(service: &Service, wanted: impl Fn(&Value) -> bool) -> Value {
    let waiting = async {
        loop {
            let ready = send(service.request(Method::GET, "/readyz")).await.body;
            if wanted(&ready) {
                return ready;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(DEADLINE, waiting).await;
    waited.expect("/readyz never says so")
}

fn published(ready: &Value) -> bool {
    ready["published"] == ready["head"] && ready["missing"] == json!([])
}

/// The stream holds the event of every position, byte for byte, and nothing else.
async fn stream_is_ledger(folder: &Folder, nats: &Nats) {
    let path = folder.data_dir().join("ledger.db");
    let ledger: Arc<dyn History> = Arc::new(SqliteStore::open(&path).await.unwrap());
    let client = async_nats::connect(nats.url()).await.unwrap();
    let stream = jetstream::new(client).get_stream("PROFILES").await.unwrap();
    let events = ledger.read(0, 100_000).await.unwrap();
    assert_eq!(stream.cached_info().state.messages, events.len() as u64);
    for event in events {
        let message = stream.get_raw_message(event.position).await.unwrap();
        let found = ledger::message::from_message(&message.headers, &message.payload);
        assert_eq!(found.unwrap(), event);
    }
}

#[tokio::test]
async fn every_event_is_published_at_its_position_and_read_back_from_the_stream() {
    let nats = Nats::start();
    let folder = Folder::new();
    let service = start(&folder, &nats);
    assert!(service.banner.contains("published over NATS"));
    let token = service.token(DEMO_USER, "user");
    for round in 0..50 {
        let answer = put(&service, &token, &format!("round {round}")).await;
        read_back(&service, &token, &answer).await;
    }
    let ready = readiness(&service, published).await;
    assert_eq!(ready["head"], 51);
    service.stop();
    stream_is_ledger(&folder, &nats).await;
}

#[tokio::test]
async fn while_the_broker_is_away_commands_and_reads_go_on_and_nothing_is_lost() {
    let mut nats = Nats::start();
    let folder = Folder::new();
    let service = start(&folder, &nats);
    let token = service.token(DEMO_USER, "user");
    let answer = put(&service, &token, "before").await;
    read_back(&service, &token, &answer).await;
    readiness(&service, published).await;

    nats.kill();
    for round in 0..20 {
        let answer = put(&service, &token, &format!("without a broker {round}")).await;
        assert_eq!(answer.status, StatusCode::OK);
        read_back(&service, &token, &answer).await;
    }
    let is_told = |ready: &Value| ready["missing"].to_string().contains("relay, trying again");
    let ready = readiness(&service, is_told).await;
    assert_eq!(ready["ready"], true, "requests are served all the same");

    nats.start_again();
    let answer = put(&service, &token, "after").await;
    read_back(&service, &token, &answer).await;
    readiness(&service, published).await;
    service.stop();
    stream_is_ledger(&folder, &nats).await;
}

#[tokio::test]
async fn a_broker_that_comes_later_is_caught_up_with() {
    let mut nats = Nats::start();
    nats.kill();
    let folder = Folder::new();
    let service = start(&folder, &nats);
    let token = service.token(DEMO_USER, "user");
    let answer = put(&service, &token, "nobody listens").await;
    read_back(&service, &token, &answer).await;
    // Killed before anything was published: the ledger itself is what will be published.
    service.kill();
    let service = start(&folder, &nats);
    nats.start_again();
    readiness(&service, published).await;
    service.stop();
    stream_is_ledger(&folder, &nats).await;
}

#[tokio::test]
async fn a_stream_that_is_not_of_this_ledger_halts_publishing_and_nothing_else() {
    let nats = Nats::start();
    let other = Folder::new();
    let service = start(&other, &nats);
    let token = service.token(DEMO_USER, "user");
    for round in 0..5 {
        put(&service, &token, &format!("another ledger {round}")).await;
    }
    readiness(&service, published).await;
    service.stop();

    let folder = Folder::new();
    let service = start(&folder, &nats);
    let token = service.token(DEMO_USER, "user");
    let is_halted = |ready: &Value| ready["missing"].to_string().contains("relay, halted");
    let ready = readiness(&service, is_halted).await;
    assert_eq!(ready["ready"], true);
    let answer = put(&service, &token, "taken all the same").await;
    read_back(&service, &token, &answer).await;
    let metrics = service.request(Method::GET, "/metrics").send().await;
    let metrics = metrics.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("profile_ledger_relay_halted 1"),
        "{metrics}"
    );
    service.stop();
    stream_is_ledger(&other, &nats).await;
}
