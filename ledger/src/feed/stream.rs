//! Follows the ledger through its JetStream stream alone, for programs without access to the store.

use std::time::Duration;

use async_nats::jetstream::consumer::pull::Ordered;
use async_trait::async_trait;
use futures::{FutureExt as _, StreamExt as _};

use super::jetstream::{Taken, take};
use super::{Error, Feed};
use crate::message::from_message;
use crate::stream::Connection;
use events::Position;
use events::envelope::StoredEvent;

/// How long to wait for an event, or for a stream that lags behind, before checking the stream.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Follows the ledger's stream. An event that has left the stream is a gap here, although the
/// ledger still has it.
pub struct StreamFeed {
    connection: Connection,
    /// `None` means the end of the stream, until that is known.
    after: Option<Position>,
    batch: usize,
    messages: Option<Box<Ordered>>,
}

impl StreamFeed {
    /// A feed of the events after a position, or of the events published from the first check on;
    /// at most `batch` at a time.
    pub fn new(connection: Connection, after: Option<Position>, batch: usize) -> Self {
        Self {
            connection,
            after,
            batch,
            messages: None,
        }
    }

    /// Checks the stream. It is followed as soon as it reaches as far as this feed.
    async fn look(&mut self) -> Result<(), Error> {
        let stream = self.connection.stream().await?;
        let bounds = stream.bounds().await?;
        let after = *self.after.get_or_insert(bounds.last);
        if bounds.first > after + 1 {
            return Err(Error::Gap {
                expected: after + 1,
                found: bounds.first,
            });
        }
        match stream.follow(after).await? {
            Some(messages) => self.messages = Some(Box::new(messages)),
            None => tokio::time::sleep(LOOK_AGAIN).await,
        }
        Ok(())
    }

    /// Checks a stream that has been silent. If it has more events, either the server has forgotten
    /// this consumer, for example after a restart, or the next event and all later ones were
    /// removed.
    async fn look_after(&mut self, after: Position) -> Result<(), Error> {
        let messages = self.messages.take();
        let last = self.connection.stream().await?.bounds().await?.last;
        if last > after {
            return self.judge(after).await;
        }
        self.messages = messages;
        Ok(())
    }

    /// Decides about a message that was not the next event. It is an error unless the next event
    /// may still come.
    async fn judge(&mut self, after: Position) -> Result<(), Error> {
        let stream = self.connection.stream().await?;
        let bounds = stream.bounds().await?;
        if bounds.last <= after {
            return Ok(());
        }
        match stream.message(after + 1).await? {
            None => Err(Error::Gap {
                expected: after + 1,
                found: bounds.first.max(after + 2),
            }),
            Some(message) => match from_message(&message.headers, &message.payload) {
                Ok(event) if event.position == after + 1 => Ok(()),
                _ => Err(Error::Foreign(after + 1)),
            },
        }
    }
}

#[async_trait]
impl Feed for StreamFeed {
    async fn next(&mut self) -> Result<Vec<StoredEvent>, Error> {
        loop {
            let (Some(after), Some(messages)) = (self.after, &mut self.messages) else {
                self.look().await?;
                continue;
            };
            let received = tokio::select! {
                biased;
                received = messages.next() => received,
                () = tokio::time::sleep(LOOK_AGAIN) => {
                    self.look_after(after).await?;
                    continue;
                }
            };
            let mut message = Some(received);
            // No await until the events are returned: a dropped call loses nothing.
            let (mut events, mut is_broken) = (Vec::new(), false);
            let mut last = after;
            while let Some(received) = message.take() {
                match take(received, last) {
                    Taken::Next(event) => {
                        last = event.position;
                        events.push(event);
                    }
                    Taken::Old => {}
                    Taken::Early(_) | Taken::Unusable(_) => {
                        is_broken = true;
                        break;
                    }
                }
                if events.len() < self.batch {
                    message = messages.next().now_or_never();
                }
            }
            self.after = Some(last);
            if is_broken {
                self.messages = None;
            }
            if !events.is_empty() {
                return Ok(events);
            }
            if is_broken {
                self.judge(last).await?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream;
    use async_nats::jetstream::message::PublishMessage;
    use async_nats::jetstream::stream::Config;

    use super::*;
    use crate::message::to_message;
    use crate::test_ledger::{DEADLINE, event};
    use crate::test_servers::Nats;
    use events::subject;
    use events::subject::STREAM;

    struct Stream {
        nats: Nats,
        context: jetstream::Context,
    }

    impl Stream {
        async fn new() -> Self {
            let nats = Nats::start();
            let context = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
            let config = Config {
                name: STREAM.to_owned(),
                subjects: vec!["profiles.v1.>".to_owned()],
                ..Config::default()
            };
            context.create_stream(config).await.unwrap();
            Self { nats, context }
        }

        /// Publishes the events of some positions in order.
        async fn publish(&self, positions: impl IntoIterator<Item = Position>) {
            for position in positions {
                let event = event("ours", position);
                let (headers, body) = to_message(&event);
                let message = PublishMessage::build().headers(headers).payload(body);
                let subject = subject::of(&event.user_id, &event.event_type);
                let sent = self.context.send_publish(subject, message).await.unwrap();
                sent.await.unwrap();
            }
        }

        async fn feed(&self, after: Option<Position>) -> StreamFeed {
            let connection = Connection::open(&self.nats.url()).await.unwrap();
            StreamFeed::new(connection, after, 16)
        }

        async fn delete(&self, position: Position) {
            let stream = self.context.get_stream(STREAM).await.unwrap();
            stream.delete_message(position).await.unwrap();
        }
    }

    async fn next(feed: &mut StreamFeed) -> Result<Vec<StoredEvent>, Error> {
        let next = tokio::time::timeout(DEADLINE, feed.next()).await;
        next.expect("the feed goes on")
    }

    #[tokio::test]
    async fn every_event_comes_once_in_order_and_exactly_as_published() {
        let stream = Stream::new().await;
        stream.publish(1..=50).await;
        let mut feed = stream.feed(Some(0)).await;
        let mut events = Vec::new();
        while events.len() < 60 {
            events.extend(next(&mut feed).await.unwrap());
            if events.len() == 50 {
                stream.publish(51..=60).await;
            }
        }
        let expected: Vec<_> = (1..=60).map(|position| event("ours", position)).collect();
        assert_eq!(events, expected);
    }

    #[tokio::test]
    async fn a_missing_event_is_a_gap_after_the_events_before_it() {
        let stream = Stream::new().await;
        stream.publish(1..=5).await;
        stream.delete(3).await;
        let mut feed = stream.feed(Some(0)).await;
        let mut last = 0;
        let error = loop {
            match next(&mut feed).await {
                Ok(events) => last = crate::feed::follow(last, &events).unwrap(),
                Err(error) => break error,
            }
        };
        assert_eq!(last, 2);
        assert!(matches!(error, Error::Gap { expected: 3, .. }), "{error:?}");
        // Also at the beginning.
        stream.delete(1).await;
        let error = next(&mut stream.feed(Some(0)).await).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Gap {
                    expected: 1,
                    found: 2
                }
            ),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_missing_event_at_the_end_is_a_gap_without_a_wait() {
        let stream = Stream::new().await;
        stream.publish(1..=5).await;
        stream.delete(4).await;
        stream.delete(5).await;
        let mut feed = stream.feed(Some(0)).await;
        let mut last = 0;
        while last < 3 {
            let events = next(&mut feed).await.unwrap();
            last = crate::feed::follow(last, &events).unwrap();
        }
        for mut feed in [feed, stream.feed(Some(3)).await] {
            let error = next(&mut feed).await.unwrap_err();
            assert!(matches!(error, Error::Gap { expected: 4, .. }), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_message_that_is_not_the_event_of_its_sequence_is_never_delivered() {
        let stream = Stream::new().await;
        stream.publish([1, 3]).await;
        let mut feed = stream.feed(Some(1)).await;
        let error = next(&mut feed).await.unwrap_err();
        assert!(matches!(error, Error::Foreign(2)), "{error:?}");
        let message = stream.context.publish("profiles.v1.p00.x", "x".into());
        message.await.unwrap().await.unwrap();
        let error = next(&mut stream.feed(Some(2)).await).await.unwrap_err();
        assert!(matches!(error, Error::Foreign(3)), "{error:?}");
    }

    #[tokio::test]
    async fn without_a_position_it_starts_with_events_published_after_the_first_check() {
        let stream = Stream::new().await;
        stream.publish(1..=3).await;
        let mut feed = stream.feed(None).await;
        feed.look().await.unwrap();
        stream.publish(4..=4).await;
        assert_eq!(next(&mut feed).await.unwrap(), [event("ours", 4)]);
    }
}
