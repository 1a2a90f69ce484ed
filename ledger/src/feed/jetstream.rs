//! Follows the ledger through its JetStream stream, and through its store while the stream cannot
//! serve: it is unavailable, does not reach back far enough, or lags behind.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedError};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Error, Feed, read_after};
use crate::message::from_message;
use crate::store::History;
use crate::stream::Connection;
use events::Position;
use events::envelope::StoredEvent;

/// How long the stream may lag behind a ledger that is known to have more events.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the feed reads the ledger before it tries the stream again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Follows the ledger's stream.
pub struct JetStreamFeed {
    history: Arc<dyn History>,
    head: watch::Receiver<Position>,
    connection: Connection,
    after: Position,
    batch: usize,
    source: Source,
    /// Events of the stream that were not yet compared with the ledger. They are kept here so that
    /// a dropped call does not lose them.
    unconfirmed: Vec<StoredEvent>,
    /// An event of the stream that came too early: the stream lacks the events before it.
    held: Option<StoredEvent>,
}

/// The current source of the events.
enum Source {
    Stream {
        messages: Box<Ordered>,
        /// The time when the stream has been silent for too long, counted from when the ledger was
        /// seen to have more.
        deadline: Option<Instant>,
        has_delivered: bool,
    },
    /// The ledger, until the stream is available. A background future tries the stream, so no event
    /// waits for a server that does not answer.
    Store { looking: BoxFuture<'static, Look> },
}

/// The result of an attempt to use the stream.
enum Look {
    /// It is time for an attempt.
    Due,
    /// The stream is unavailable, lags behind this feed, or does not reach back to it.
    Absent,
    Found(Box<Ordered>),
}

/// The meaning of a message of the stream.
pub(super) enum Taken {
    /// The next event.
    Next(StoredEvent),
    /// An event that was already delivered.
    Old,
    /// A later event.
    Early(StoredEvent),
    /// A message that cannot be trusted.
    Unusable(String),
}

impl JetStreamFeed {
    /// A feed of the events after a position, at most `batch` at a time.
    pub fn new(
        history: Arc<dyn History>,
        connection: Connection,
        after: Position,
        batch: usize,
    ) -> Self {
        Self {
            head: history.watch_head(),
            history,
            source: Source::Store {
                looking: look(connection.clone(), after),
            },
            connection,
            after,
            batch,
            unconfirmed: Vec::new(),
            held: None,
        }
    }

    /// Whether the events currently come from the stream.
    pub fn is_on_stream(&self) -> bool {
        matches!(self.source, Source::Stream { .. })
    }

    /// Whether the last events came from the stream and the next may be expected there.
    #[cfg(test)]
    fn has_delivered(&self) -> bool {
        matches!(self.source, Source::Stream { has_delivered, .. } if has_delivered)
    }

    fn leave_stream(&mut self, reason: &str) {
        let position = self.after;
        // A stream that is found and repeatedly unusable is reported only once.
        if let Source::Stream {
            has_delivered: true,
            ..
        } = self.source
        {
            tracing::info!(position, reason, "The feed continues from the ledger");
        } else {
            tracing::debug!(position, reason, "The feed still reads the ledger");
        }
        self.look_again();
    }

    fn look_again(&mut self) {
        let wait = tokio::time::sleep(LOOK_AGAIN);
        self.source = Source::Store {
            looking: wait.map(|()| Look::Due).boxed(),
        };
    }

    /// The events from the stream, if the ledger has the same. Only the relay may publish there,
    /// but a foreign message must not be taken for history. Once stream and ledger differ, they
    /// differ in all later events, so it is enough to compare the last event.
    async fn next_confirmed(&mut self) -> Result<Option<Vec<StoredEvent>>, Error> {
        let Some(last) = self.unconfirmed.last() else {
            return Ok(None);
        };
        let position = last.position;
        let kept = self.history.read(position - 1, 1).await?;
        if kept.first() == Some(last) {
            self.after = position;
            return Ok(Some(std::mem::take(&mut self.unconfirmed)));
        }
        tracing::warn!(
            position,
            "The stream contains an event that the ledger does not have; from now on the feed reads only the ledger"
        );
        self.unconfirmed.clear();
        self.held = None;
        self.source = Source::Store {
            looking: std::future::pending().boxed(),
        };
        Ok(None)
    }

    /// The events before the held event; afterwards the held event is next.
    async fn next_held(&mut self) -> Result<Option<Vec<StoredEvent>>, Error> {
        if let Some(held) = self.held.take_if(|held| held.position <= self.after + 1) {
            if held.position > self.after {
                self.unconfirmed.push(held);
            }
            return Ok(None);
        }
        let Some(held) = &self.held else {
            return Ok(None);
        };
        let missing = held.position - self.after - 1;
        let limit = usize::try_from(missing).map_or(self.batch, |n| n.min(self.batch));
        let events = read_after(&*self.history, self.after, limit).await?;
        self.after += events.len() as u64;
        Ok(Some(events))
    }

    /// Moves the available events of the stream into `unconfirmed`.
    async fn next_of_stream(&mut self) {
        let Source::Stream {
            messages, deadline, ..
        } = &mut self.source
        else {
            return;
        };
        let message = tokio::select! {
            biased;
            message = messages.next() => message,
            () = overdue(&mut self.head, self.after, deadline) => {
                self.leave_stream("the stream does not deliver an event that the ledger has");
                return;
            }
        };
        // No await from here on: events taken from the stream are kept.
        let mut last = self.after;
        let mut message = Some(message);
        while let Some(received) = message.take() {
            match take(received, last) {
                Taken::Next(event) => {
                    last = event.position;
                    self.unconfirmed.push(event);
                }
                Taken::Old => {}
                Taken::Early(event) => {
                    self.held = Some(event);
                    break;
                }
                Taken::Unusable(reason) => {
                    self.leave_stream(&reason);
                    break;
                }
            }
            if let Source::Stream { messages, .. } = &mut self.source
                && self.unconfirmed.len() < self.batch
            {
                message = messages.next().now_or_never();
            }
        }
        if !self.unconfirmed.is_empty()
            && let Source::Stream {
                deadline,
                has_delivered,
                ..
            } = &mut self.source
        {
            *deadline = None;
            *has_delivered = true;
        }
    }

    /// Returns `None` when the source has to be checked again.
    async fn next_of_store(&mut self) -> Result<Option<Vec<StoredEvent>>, Error> {
        let Source::Store { looking } = &mut self.source else {
            return Ok(None);
        };
        let moved = async {
            let head = self.head.wait_for(|head| *head > self.after).await;
            head.map(|_| ()).map_err(|_| Error::Closed)
        };
        tokio::select! {
            biased;
            found = looking => {
                match found {
                    // Starts from the feed's current position.
                    Look::Due => {
                        self.source = Source::Store {
                            looking: look(self.connection.clone(), self.after),
                        };
                    }
                    Look::Absent => self.look_again(),
                    Look::Found(messages) => {
                        tracing::debug!(position = self.after, "The feed follows the stream");
                        self.source = Source::Stream {
                            messages,
                            deadline: None,
                            has_delivered: false,
                        };
                    }
                }
                Ok(None)
            }
            moved = moved => {
                moved?;
                let events = read_after(&*self.history, self.after, self.batch).await?;
                self.after += events.len() as u64;
                Ok(Some(events))
            }
        }
    }
}

#[async_trait]
impl Feed for JetStreamFeed {
    async fn next(&mut self) -> Result<Vec<StoredEvent>, Error> {
        loop {
            if let Some(events) = self.next_confirmed().await? {
                return Ok(events);
            }
            if let Some(events) = self.next_held().await? {
                return Ok(events);
            }
            match self.source {
                _ if !self.unconfirmed.is_empty() => {}
                Source::Stream { .. } => self.next_of_stream().await,
                Source::Store { .. } => {
                    if let Some(events) = self.next_of_store().await? {
                        return Ok(events);
                    }
                }
            }
        }
    }
}

/// Tries to follow the stream from a position.
fn look(connection: Connection, after: Position) -> BoxFuture<'static, Look> {
    async move {
        match async { connection.stream().await?.follow(after).await }.await {
            Ok(Some(messages)) => Look::Found(Box::new(messages)),
            Ok(None) => Look::Absent,
            Err(error) => {
                tracing::debug!(%error, "The stream cannot be followed yet");
                Look::Absent
            }
        }
    }
    .boxed()
}

/// Completes when the ledger has been ahead of the stream's deliveries for too long.
async fn overdue(
    head: &mut watch::Receiver<Position>,
    after: Position,
    deadline: &mut Option<Instant>,
) {
    // A closed ledger does not grow any more.
    if head.wait_for(|head| *head > after).await.is_err() {
        std::future::pending::<()>().await;
    }
    let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
    tokio::time::sleep_until(deadline).await;
}

/// Reads a message of the stream. A message that is not the event of its sequence was not published
/// by a relay.
pub(super) fn take(
    received: Option<Result<async_nats::jetstream::Message, OrderedError>>,
    after: Position,
) -> Taken {
    let message = match received {
        Some(Ok(message)) => message,
        Some(Err(error)) => return Taken::Unusable(error.to_string()),
        None => return Taken::Unusable("the stream has ended".to_owned()),
    };
    let sequence = match message.info() {
        Ok(info) => info.stream_sequence,
        Err(error) => return Taken::Unusable(error.to_string()),
    };
    read(sequence, message.headers.as_ref(), &message.payload, after)
}

fn read(sequence: u64, headers: Option<&HeaderMap>, body: &Bytes, after: Position) -> Taken {
    if sequence <= after {
        return Taken::Old;
    }
    match from_message(headers.unwrap_or(&HeaderMap::new()), body) {
        Ok(event) if event.position != sequence => {
            Taken::Unusable(format!("sequence {sequence} contains another position"))
        }
        Ok(event) if sequence == after + 1 => Taken::Next(event),
        Ok(event) => Taken::Early(event),
        Err(error) => Taken::Unusable(format!("sequence {sequence}: {error}")),
    }
}

#[cfg(test)]
mod tests;
