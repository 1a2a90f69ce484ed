//! The stream's feed yields the same events as the store's feed, whatever happens to the server.

use async_nats::jetstream;
use async_nats::jetstream::stream::Config;

use super::*;
use crate::feed::StoreFeed;
use crate::relay::{Health, Relay, Settings};
use crate::test_ledger::{DEADLINE, TestLedger, event};
use crate::test_servers::Nats;
use events::subject::STREAM;

/// A ledger, its stream, and both feeds from the start.
struct Followed {
    nats: Nats,
    ledger: TestLedger,
    health: watch::Receiver<Health>,
    feed: JetStreamFeed,
    reference: StoreFeed,
    /// The last position that both feeds have yielded.
    seen: Position,
}

async fn followed(config: Option<Config>, events: u64) -> Followed {
    let (nats, ledger) = (Nats::start(), TestLedger::new("ours").await);
    if let Some(config) = config {
        client(&nats).await.create_stream(config).await.unwrap();
    }
    if events > 0 {
        ledger.grow(events).await;
    }
    let connection = Connection::open(&nats.url()).await.unwrap();
    let settings = Settings {
        check_every: Duration::from_millis(200),
        ..Settings::default()
    };
    let (relay, health) = Relay::new(ledger.history(), connection.clone(), settings, || 0);
    tokio::spawn(relay.run());
    let mut followed = Followed {
        feed: JetStreamFeed::new(ledger.history(), connection, 0, 16),
        reference: StoreFeed::new(ledger.history(), 0, 16),
        nats,
        ledger,
        health,
        seen: 0,
    };
    followed.published(events).await;
    followed
}

async fn client(nats: &Nats) -> jetstream::Context {
    jetstream::new(async_nats::connect(nats.url()).await.unwrap())
}

fn plain() -> Config {
    Config {
        name: STREAM.to_owned(),
        subjects: vec!["profiles.v1.>".to_owned()],
        ..Config::default()
    }
}

async fn next(feed: &mut impl Feed) -> Vec<StoredEvent> {
    tokio::time::timeout(DEADLINE, feed.next())
        .await
        .expect("the feed goes on")
        .unwrap()
}

async fn up_to(feed: &mut impl Feed, after: Position, position: Position) -> Vec<StoredEvent> {
    let mut events = Vec::new();
    while after + (events.len() as u64) < position {
        events.extend(next(feed).await);
    }
    events
}

impl Followed {
    async fn published(&mut self, position: Position) {
        let published = self.health.wait_for(|health| health.published >= position);
        let waited = tokio::time::timeout(DEADLINE, published).await;
        waited.expect("the relay publishes").unwrap();
    }

    /// Checks that both feeds yield the same events up to the head.
    async fn agrees(&mut self, head: Position) {
        let ours = up_to(&mut self.feed, self.seen, head).await;
        let theirs = up_to(&mut self.reference, self.seen, head).await;
        assert_eq!(ours, theirs);
        self.seen = head;
    }

    /// Grows the ledger until an event has come from the stream.
    async fn on_stream(&mut self) {
        let settled = async {
            loop {
                let head = self.ledger.grow(1).await;
                self.published(head).await;
                self.agrees(head).await;
                if self.feed.has_delivered() {
                    break;
                }
            }
        };
        tokio::time::timeout(DEADLINE, settled)
            .await
            .expect("the feed moves to the stream");
    }
}

#[tokio::test]
async fn both_feeds_yield_the_same_bytes() {
    let mut followed = followed(None, 200).await;
    followed.agrees(200).await;
    followed.on_stream().await;
    let head = followed.ledger.grow(300).await;
    followed.agrees(head).await;
    assert!(followed.feed.has_delivered(), "all came from the stream");
}

#[tokio::test]
async fn events_that_the_stream_has_dropped_come_from_the_ledger() {
    let config = Config {
        max_messages: 20,
        ..plain()
    };
    let mut followed = followed(Some(config), 200).await;
    followed.agrees(200).await;
    followed.on_stream().await;
    // More than the stream keeps, while the feed does not read.
    let head = followed.ledger.grow(500).await;
    followed.published(head).await;
    followed.agrees(head).await;
    followed.on_stream().await;
}

#[tokio::test]
async fn events_missing_inside_the_stream_come_from_the_ledger() {
    let mut followed = followed(Some(plain()), 0).await;
    followed.on_stream().await;
    let gap = followed.seen;
    // Not read yet: the feed requests them with its next call at the latest.
    let head = followed.ledger.grow(2_000).await;
    followed.published(head).await;
    let stream = client(&followed.nats)
        .await
        .get_stream(STREAM)
        .await
        .unwrap();
    for position in gap + 1_000..gap + 1_040 {
        stream.delete_message(position).await.unwrap();
    }
    followed.agrees(head).await;
    followed.on_stream().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_outage_is_invisible_to_the_follower() {
    let mut followed = followed(None, 10).await;
    followed.agrees(10).await;
    followed.on_stream().await;
    followed.nats.stop();
    followed.nats.start_again();
    followed.on_stream().await;
    let head = followed.ledger.grow(100).await;
    followed.agrees(head).await;

    followed.nats.kill();
    let head = followed.ledger.grow(100).await;
    followed.agrees(head).await;
    assert!(
        !followed.feed.is_on_stream(),
        "these came from the ledger: the server is unavailable"
    );
    followed.nats.start_again();
    followed.on_stream().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recreated_stream_repeats_nothing() {
    let mut followed = followed(None, 100).await;
    followed.agrees(100).await;
    followed.on_stream().await;
    followed.nats.stop();
    let nothing = tempfile::tempdir().unwrap();
    followed.nats.roll_back_to(nothing.path());
    followed.nats.start_again();
    let head = followed.ledger.grow(100).await;
    followed.agrees(head).await;
    followed.published(head).await;
    followed.on_stream().await;
}

#[tokio::test]
async fn a_message_that_is_not_an_event_is_not_followed() {
    let mut followed = followed(None, 10).await;
    followed.agrees(10).await;
    followed.on_stream().await;
    let context = client(&followed.nats).await;
    let foreign = context.publish("profiles.v1.p00.evil", "{}".into()).await;
    foreign.unwrap().await.unwrap();
    // The relay halts, and the ledger grows.
    let head = followed.ledger.grow(30).await;
    followed.agrees(head).await;
    assert!(!followed.feed.has_delivered());
}

#[tokio::test]
async fn a_well_formed_event_of_another_ledger_is_never_yielded() {
    let mut followed = followed(None, 10).await;
    followed.agrees(10).await;
    followed.on_stream().await;
    let next = followed.seen + 1;
    let theirs = TestLedger::new("theirs").await;
    theirs.grow(next).await;
    let forged = theirs.history().read(next - 1, 1).await.unwrap().remove(0);
    let (headers, body) = crate::message::to_message(&forged);
    let subject = events::subject::of(&forged.user_id, &forged.event_type);
    let context = client(&followed.nats).await;
    let published = context.publish_with_headers(subject, headers, body).await;
    assert_eq!(published.unwrap().await.unwrap().sequence, next);
    // The message must not be delivered, neither before the ledger has its own event nor
    // afterwards.
    let early = tokio::time::timeout(Duration::from_millis(300), followed.feed.next()).await;
    assert!(early.is_err(), "{early:?}");
    let head = followed.ledger.grow(30).await;
    followed.agrees(head).await;
}

#[tokio::test]
async fn a_dropped_call_loses_nothing() {
    let mut followed = followed(None, 0).await;
    followed.on_stream().await;
    let after = followed.seen;
    let head = followed.ledger.grow(300).await;
    let mut events = Vec::new();
    let taken = async {
        while events.len() < 300 {
            if let Some(next) = followed.feed.next().now_or_never() {
                events.extend(next.unwrap());
            } else {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(DEADLINE, taken).await.unwrap();
    assert_eq!(events, up_to(&mut followed.reference, after, head).await);
}

#[test]
fn a_message_is_old_next_early_or_unusable() {
    let at = |sequence: u64, event: Option<StoredEvent>, after| {
        let (headers, payload) = event.as_ref().map(crate::message::to_message).unzip();
        read(
            sequence,
            headers.as_ref(),
            &payload.unwrap_or_default(),
            after,
        )
    };
    assert!(matches!(at(5, Some(event("ours", 5)), 5), Taken::Old));
    assert!(matches!(at(5, Some(event("ours", 5)), 4), Taken::Next(_)));
    assert!(matches!(at(5, Some(event("ours", 5)), 3), Taken::Early(_)));
    assert!(matches!(
        at(5, Some(event("ours", 6)), 4),
        Taken::Unusable(_)
    ));
    assert!(matches!(at(5, None, 4), Taken::Unusable(_)));
}
