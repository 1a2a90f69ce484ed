//! Tests each line of the loop on a real nats-server.

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::Config;
use futures::StreamExt as _;
use tokio::task::JoinHandle;

use super::*;
use crate::message::to_message;
use crate::test_ledger::{DEADLINE, TestLedger, event};
use crate::test_servers::Nats;

/// A running relay; it ends with the test.
struct Running {
    health: watch::Receiver<Health>,
    task: JoinHandle<Error>,
}

fn quick() -> Settings {
    Settings {
        check_every: Duration::from_millis(200),
        look_every: Duration::from_millis(200),
        ..Settings::default()
    }
}

async fn relay(nats: &Nats, ledger: &TestLedger, settings: Settings) -> Running {
    let connection = Connection::open(&nats.url()).await.unwrap();
    let mut next = 0;
    let random = move || {
        next += 1;
        next
    };
    let (relay, health) = Relay::new(ledger.history(), connection, settings, random);
    Running {
        health,
        task: tokio::spawn(relay.run()),
    }
}

impl Running {
    /// Waits for a health that satisfies a condition.
    async fn until(&mut self, what: impl FnMut(&Health) -> bool) -> Health {
        let waited = tokio::time::timeout(DEADLINE, self.health.wait_for(what)).await;
        let waited = waited.map(|health| health.expect("the relay has a health").clone());
        waited.unwrap_or_else(|_| panic!("the relay stays {:?}", self.health.borrow()))
    }

    async fn publishes(&mut self, position: Position) {
        self.until(|health| health.published >= position).await;
    }

    async fn halts(mut self) -> Error {
        self.until(|health| matches!(health.state, State::Halted { .. }))
            .await;
        (&mut self.task).await.unwrap()
    }

    async fn stops(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

async fn stream(nats: &Nats) -> LedgerStream {
    let connection = Connection::open(&nats.url()).await.unwrap();
    connection.stream().await.unwrap()
}

async fn client(nats: &Nats) -> jetstream::Context {
    jetstream::new(async_nats::connect(nats.url()).await.unwrap())
}

/// Publishes as another client, although only a relay may.
async fn publish_foreign(nats: &Nats, headers: HeaderMap) {
    let context = client(nats).await;
    let ack = context.publish_with_headers("profiles.v1.p00.evil", headers, "{}".into());
    ack.await.unwrap().await.unwrap();
}

/// A stream that the relay did not create, with events of a ledger.
async fn stream_with(nats: &Nats, config: Config, events: impl IntoIterator<Item = StoredEvent>) {
    client(nats).await.create_stream(config).await.unwrap();
    let stream = stream(nats).await;
    for event in events {
        let ack = stream.publish(&event).await.unwrap().await.unwrap();
        assert_eq!(ack.sequence, event.position);
    }
}

/// A stream as an operator may have created it before.
fn plain() -> Config {
    Config {
        name: events::subject::STREAM.to_owned(),
        subjects: vec!["profiles.v1.>".to_owned()],
        ..Config::default()
    }
}

async fn assert_stream_is_ledger(nats: &Nats, ledger: &TestLedger) {
    let (stream, events) = (stream(nats).await, ledger.events().await);
    assert_eq!(stream.bounds().await.unwrap().last, events.len() as u64);
    for event in events {
        let message = stream.message(event.position).await.unwrap();
        let message = message.unwrap_or_else(|| panic!("{} is missing", event.position));
        assert_eq!(difference(&message, &event), None, "{}", event.position);
    }
}

#[tokio::test]
async fn every_event_is_published_at_its_position_also_while_the_head_moves() {
    let (nats, ledger) = (Nats::start(), TestLedger::new("ours").await);
    ledger.grow(1).await;
    let mut relay = relay(&nats, &ledger, Settings::default()).await;
    relay.publishes(1).await;
    // More than a window at once, and less.
    for events in [WINDOW as u64 * 2 + 7, 1, 50, 1, 300] {
        ledger.grow(events).await;
    }
    let head = ledger.grow(1).await;
    relay.publishes(head).await;
    let health = relay.until(|health| health.state == State::Running).await;
    assert_eq!(health.published, head);
    assert_stream_is_ledger(&nats, &ledger).await;
}

#[tokio::test]
async fn a_lost_tail_heals_and_a_durable_consumer_receives_exactly_what_was_lost() {
    let (mut nats, ledger) = (Nats::start(), TestLedger::new("ours").await);
    let mut relay = relay(&nats, &ledger, quick()).await;
    ledger.grow(100).await;
    relay.publishes(100).await;
    let durable = pull::Config {
        durable_name: Some("durable".to_owned()),
        ack_policy: AckPolicy::Explicit,
        ..pull::Config::default()
    };
    let context = client(&nats).await;
    let consumer: PullConsumer = context
        .create_consumer_on_stream(durable, events::subject::STREAM)
        .await
        .unwrap();
    assert!(sequences(&consumer, 100).await.into_iter().eq(1..=100));

    nats.stop();
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("copy");
    nats.copy_to(&copy);
    nats.start_again();
    ledger.grow(200).await;
    relay.publishes(300).await;

    nats.stop();
    nats.roll_back_to(&copy);
    nats.start_again();
    let head = ledger.grow(1).await;
    relay.publishes(head).await;
    assert!(sequences(&consumer, 201).await.into_iter().eq(101..=301));
    assert_stream_is_ledger(&nats, &ledger).await;
}

/// Takes this many messages from a durable consumer.
async fn sequences(consumer: &PullConsumer, count: usize) -> Vec<u64> {
    let taken = async {
        let mut sequences = Vec::new();
        while sequences.len() < count {
            let fetch = consumer.fetch().max_messages(count - sequences.len());
            // A consumer whose server is still starting may answer late or not at all.
            let Ok(mut messages) = fetch.messages().await else {
                tokio::task::yield_now().await;
                continue;
            };
            while let Some(Ok(message)) = messages.next().await {
                sequences.push(message.info().unwrap().stream_sequence);
                message.double_ack().await.unwrap();
            }
        }
        sequences
    };
    tokio::time::timeout(DEADLINE, taken)
        .await
        .expect("the consumer receives as many messages")
}

#[tokio::test]
async fn a_message_missing_inside_the_stream_stops_nothing() {
    let (nats, ledger) = (Nats::start(), TestLedger::new("ours").await);
    stream_with(&nats, plain(), []).await;
    let mut relay = relay(&nats, &ledger, quick()).await;
    ledger.grow(8).await;
    relay.publishes(8).await;
    let context = client(&nats).await;
    let stream = context.get_stream(events::subject::STREAM).await.unwrap();
    stream.delete_message(4).await.unwrap();
    ledger.grow(1).await;
    relay.publishes(9).await;
    relay.until(|health| health.state == State::Running).await;
    relay.stops().await;
    // A check that meets the gap at every second look logs it and goes on.
    let connection = Connection::open(&nats.url()).await.unwrap();
    let mut looks = 0;
    let random = move || {
        looks += 1;
        if looks % 2 == 0 { 3 } else { looks }
    };
    let (mut relay, _health) = Relay::new(ledger.history(), connection, quick(), random);
    let stream = self::stream(&nats).await;
    relay.sample(&stream, 9).await.unwrap();
}

#[tokio::test]
async fn a_foreign_message_after_the_head_halts_the_relay() {
    let (nats, ledger) = (Nats::start(), TestLedger::new("ours").await);
    ledger.grow(3).await;
    let mut relay = relay(&nats, &ledger, quick()).await;
    relay.publishes(3).await;
    publish_foreign(&nats, HeaderMap::new()).await;
    let error = relay.halts().await;
    assert!(
        matches!(error, Error::Ahead { last: 4, head: 3 }),
        "{error}"
    );
}

#[tokio::test]
async fn a_foreign_message_where_an_event_belongs_halts_the_relay() {
    let (nats, ledger) = (Nats::start(), TestLedger::new("ours").await);
    ledger.grow(3).await;
    let mut running = relay(&nats, &ledger, Settings::default()).await;
    running.publishes(3).await;
    publish_foreign(&nats, HeaderMap::new()).await;
    ledger.grow(5).await;
    let error = running.halts().await;
    assert!(
        matches!(error, Error::Diverged { position: 4, .. }),
        "{error}"
    );
    // Also at the next start.
    let error = relay(&nats, &ledger, Settings::default()).await;
    let error = error.halts().await;
    assert!(
        matches!(error, Error::Diverged { position: 4, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_stream_without_its_last_message_halts_the_relay() {
    let (nats, ledger) = (Nats::start(), TestLedger::new("ours").await);
    ledger.grow(3).await;
    stream_with(&nats, plain(), ledger.events().await).await;
    let stream = client(&nats)
        .await
        .get_stream(events::subject::STREAM)
        .await
        .unwrap();
    stream.delete_message(3).await.unwrap();
    let error = relay(&nats, &ledger, Settings::default()).await;
    let error = error.halts().await;
    assert!(
        matches!(error, Error::Diverged { position: 3, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn an_event_that_differs_is_found_by_the_random_comparison() {
    let (nats, ledger) = (Nats::start(), TestLedger::new("ours").await);
    let mut events = (1..=100).map(|at| event("ours", at)).collect::<Vec<_>>();
    events[49] = event("theirs", 50);
    stream_with(&nats, plain(), events).await;
    ledger.grow(100).await;
    let mut relay = relay(&nats, &ledger, quick()).await;
    relay.publishes(100).await;
    let error = relay.halts().await;
    assert!(
        matches!(error, Error::Diverged { position: 50, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_stream_ahead_of_the_ledger_halts_the_relay() {
    let (nats, ledger) = (Nats::start(), TestLedger::new("ours").await);
    stream_with(&nats, plain(), (1..=10).map(|at| event("ours", at))).await;
    ledger.grow(7).await;
    let relay = relay(&nats, &ledger, Settings::default()).await;
    let error = relay.halts().await;
    assert!(
        matches!(error, Error::Ahead { last: 10, head: 7 }),
        "{error}"
    );
}

#[tokio::test]
async fn an_acknowledgement_at_another_sequence_is_a_reason_to_halt() {
    let (nats, ledger) = (Nats::start(), TestLedger::new("ours").await);
    ledger.grow(2).await;
    stream_with(&nats, plain(), []).await;
    // The server takes event 2 for a duplicate of its message at sequence 1.
    publish_foreign(&nats, to_message(&event("ours", 2)).0).await;
    let (mut relay, _health) = idle(&nats, &ledger).await;
    let until = Instant::now() + DEADLINE;
    let error = relay.publish(&stream(&nats).await, 1, until).await;
    let error = error.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Misplaced {
                position: 2,
                sequence: 1
            }
        ),
        "{error}"
    );
    assert!(!error.is_passing());
}

/// A relay whose steps the test runs one by one.
async fn idle(nats: &Nats, ledger: &TestLedger) -> (Relay, watch::Receiver<Health>) {
    let connection = Connection::open(&nats.url()).await.unwrap();
    Relay::new(ledger.history(), connection, Settings::default(), || 0)
}

#[tokio::test]
async fn a_wrong_last_sequence_drains_the_window_and_publishing_resumes() {
    let (nats, ledger) = (Nats::start(), TestLedger::new("ours").await);
    let head = ledger.grow(500).await;
    let (mut relay, mut health) = idle(&nats, &ledger).await;
    let stream = relay.connection.make(1).await.unwrap();
    let until = Instant::now() + DEADLINE;
    // As if the stream had been seen to end at 200.
    let error = relay.publish(&stream, 200, until).await.unwrap_err();
    assert!(matches!(error, Error::Lost { position: 201 }), "{error}");
    assert_eq!((relay.losses, stream.bounds().await.unwrap().last), (1, 0));
    // A stream that refuses twice at the same end was not moved by another relay.
    let error = relay.publish(&stream, 200, until).await.unwrap_err();
    assert!(matches!(error, Error::Refused { position: 201 }), "{error}");
    assert_eq!(relay.losses, 1);

    tokio::spawn(relay.run());
    let done = health.wait_for(|health| health.published == head);
    tokio::time::timeout(DEADLINE, done).await.unwrap().unwrap();
    assert_stream_is_ledger(&nats, &ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relays_publish_each_event_once_and_the_slower_stands_by() {
    let (nats, ledger) = (Nats::start(), TestLedger::new("ours").await);
    let mut first = relay(&nats, &ledger, quick()).await;
    let mut second = relay(&nats, &ledger, quick()).await;
    let has_standby = |relay: &Running| relay.health.borrow().state == State::Standby;
    let load = async {
        while !has_standby(&first) && !has_standby(&second) {
            let head = ledger.grow(20).await;
            first.publishes(head).await;
        }
    };
    tokio::time::timeout(DEADLINE, load)
        .await
        .expect("one of two relays stands by");
    if has_standby(&first) {
        std::mem::swap(&mut first, &mut second);
    }
    let head = ledger.grow(100).await;
    first.publishes(head).await;
    second.publishes(head).await;
    assert_stream_is_ledger(&nats, &ledger).await;

    first.stops().await;
    let head = ledger.grow(100).await;
    second.publishes(head).await;
    second.until(|health| health.state == State::Running).await;
    assert_stream_is_ledger(&nats, &ledger).await;
}

#[tokio::test]
async fn a_server_that_returns_empty_is_filled_again() {
    let (mut nats, ledger) = (Nats::start(), TestLedger::new("ours").await);
    ledger.grow(300).await;
    let mut relay = relay(&nats, &ledger, quick()).await;
    relay.publishes(300).await;
    nats.stop();
    let nothing = tempfile::tempdir().unwrap();
    nats.roll_back_to(nothing.path());
    nats.start_again();
    let head = ledger.grow(1).await;
    relay.publishes(head).await;
    assert_stream_is_ledger(&nats, &ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_catches_up_after_a_broker_outage_under_load() {
    let (mut nats, ledger) = (Nats::start(), TestLedger::new("ours").await);
    let mut relay = relay(&nats, &ledger, quick()).await;
    ledger.grow(5_000).await;
    relay.until(|health| health.published > 500).await;
    nats.kill();
    let head = ledger.grow(500).await;
    relay
        .until(|health| matches!(health.state, State::Waiting { .. }))
        .await;
    nats.start_again();
    relay.publishes(head).await;
    relay.until(|health| health.state == State::Running).await;
    assert_stream_is_ledger(&nats, &ledger).await;
}

#[tokio::test]
async fn a_relay_waits_for_a_broker_that_is_unavailable_at_the_start() {
    let (mut nats, ledger) = (Nats::start(), TestLedger::new("ours").await);
    nats.stop();
    let head = ledger.grow(10).await;
    let mut relay = relay(&nats, &ledger, quick()).await;
    relay
        .until(|health| matches!(&health.state, State::Waiting { error } if error.contains("NATS")))
        .await;
    nats.start_again();
    relay.publishes(head).await;
    assert_stream_is_ledger(&nats, &ledger).await;
}

#[tokio::test]
async fn a_stream_of_limited_size_keeps_the_newest_events() {
    let (nats, ledger) = (Nats::start(), TestLedger::new("ours").await);
    let config = Config {
        max_messages: 10,
        ..plain()
    };
    stream_with(&nats, config, []).await;
    let head = ledger.grow(100).await;
    let mut relay = relay(&nats, &ledger, quick()).await;
    relay.publishes(head).await;
    let head = ledger.grow(1).await;
    relay.publishes(head).await;
    let bounds = stream(&nats).await.bounds().await.unwrap();
    assert_eq!((bounds.first, bounds.last), (92, 101));
}

#[tokio::test]
async fn a_stream_that_would_lose_its_end_is_refused() {
    let (nats, ledger) = (Nats::start(), TestLedger::new("ours").await);
    let config = Config {
        max_age: Duration::from_hours(1),
        ..plain()
    };
    stream_with(&nats, config, []).await;
    let relay = relay(&nats, &ledger, quick()).await;
    let error = relay.halts().await;
    assert!(
        matches!(error, Error::Stream(stream::Error::Unfit(_))),
        "{error}"
    );
}
