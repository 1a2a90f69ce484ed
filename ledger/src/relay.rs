//! The relay publishes the ledger to the JetStream stream, each event at the sequence equal to its
//! position.
//!
//! ```text
//! 1 last = the stream's last sequence; head = the ledger's head
//! 2 last > head                                              → halt: the stream is ahead
//! 3 the message at last is missing, or is not event(last)    → halt: they have diverged
//! 4 publish last + 1 .. head in order, a window in flight, each expecting its position − 1 before it
//! 5 an acknowledgement at another sequence                   → halt
//! 6 wrong last sequence, time-out, no connection             → drain the window, back off, go to 1
//! 7 idle: wait for the head; at times repeat 1–3, and compare some random positions
//! ```
//!
//! The stream itself records how far publishing has come, so the relay stores no progress and cannot
//! lose any. The same steps refill a server that was restored from an old copy or is empty.
//!
//! Any number of relays may run at once: the server accepts each event once and refuses the others.
//! To avoid the wasted work, a relay that lost `LOSSES` times in a row stands by. It checks the stream
//! periodically, and publishes again when the stream was behind and did not move for `STALLS` checks.
//! No lease can expire and no clocks are compared; two relays that take over at once do no harm.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::{self, ErrorCode};
use futures::FutureExt as _;
use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::fail_point::{self, FailPoint};
use crate::feed;
use crate::read_ahead::ReadAhead;
use crate::store::{self, History};
use crate::stream::{self, Connection, LedgerStream, difference};
use events::Position;
use events::chain;
use events::envelope::StoredEvent;

/// Events per read.
const PAGE: usize = 256;
/// The maximum number of events, and of bytes of their envelopes, that are sent but not
/// acknowledged.
const WINDOW: usize = 1_024;
const WINDOW_BYTES: usize = 8 << 20;
/// The number of positions compared at each check.
const SAMPLES: usize = 8;
/// How often in a row another relay must be faster before this one stands by.
const LOSSES: u32 = 3;
/// How many checks in a row must find the stream behind and unmoved before a relay takes over.
const STALLS: u32 = 3;

/// The reason why the relay cannot go on, now or at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger failed, or an event is missing.
    #[error(transparent)]
    Ledger(#[from] feed::Error),
    /// The stream failed, or its settings are wrong.
    #[error(transparent)]
    Stream(#[from] stream::Error),
    /// It is unknown whether an event was stored.
    #[error("position {position} was not acknowledged")]
    Unacknowledged {
        /// The position of the event.
        position: Position,
        /// The error instead of an acknowledgement.
        source: PublishError,
    },
    /// The stream did not end just before an event: another relay was faster, or the end of the
    /// stream was lost.
    #[error("the stream did not end before position {position}")]
    Lost {
        /// The position of the event.
        position: Position,
    },
    /// The stream ends just before an event but still refuses it.
    #[error(
        "the stream ends before position {position} but refuses it; if the stream was purged, restart NATS"
    )]
    Refused {
        /// The position of the event.
        position: Position,
    },
    /// The stream has more than the ledger: the ledger was restored from a backup, or another
    /// program has published.
    #[error("the stream is ahead of the ledger: it ends at {last}, the ledger at {head}")]
    Ahead {
        /// The end of the stream.
        last: Position,
        /// The end of the ledger.
        head: Position,
    },
    /// The stream and the ledger differ at one position.
    #[error("the stream has diverged from the ledger at position {position}: {reason}")]
    Diverged {
        /// The position.
        position: Position,
        /// The difference.
        reason: String,
    },
    /// The server stored an event at a sequence other than its position.
    #[error("position {position} was stored at sequence {sequence}")]
    Misplaced {
        /// The position of the event.
        position: Position,
        /// The sequence at which it was stored.
        sequence: u64,
    },
    /// A defect of this program.
    #[error("the relay panicked")]
    Panicked,
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Ledger(error.into())
    }
}

impl Error {
    /// Whether another attempt can help. When stream and ledger contradict each other, more events
    /// would only hide it.
    fn is_passing(&self) -> bool {
        match self {
            Self::Ledger(feed::Error::Store(store::Error::Unavailable(_)))
            | Self::Stream(stream::Error::Unavailable(_))
            | Self::Unacknowledged { .. }
            | Self::Lost { .. }
            | Self::Refused { .. } => true,
            Self::Ledger(_)
            | Self::Stream(stream::Error::Address | stream::Error::Unfit(_))
            | Self::Ahead { .. }
            | Self::Diverged { .. }
            | Self::Misplaced { .. }
            | Self::Panicked => false,
        }
    }
}

/// The health of the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The position up to which the stream was last seen to hold the ledger.
    pub published: Position,
    /// The current state.
    pub state: State,
}

/// Whether a relay publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It publishes.
    Running,
    /// Another relay publishes; this one takes over when the other stops.
    Standby,
    /// It cannot publish, and tries again. Commands are accepted and the ledger grows.
    Waiting {
        /// The cause.
        error: String,
    },
    /// It has stopped until a restart; an operator must act. Commands are accepted and the ledger
    /// grows.
    Halted {
        /// The cause.
        reason: String,
    },
}

/// The settings of a relay.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The number of servers that store a new stream.
    pub replicas: usize,
    /// How often stream and ledger are compared.
    pub check_every: Duration,
    /// How often a relay that stands by checks the stream.
    pub look_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            replicas: 1,
            check_every: Duration::from_secs(30),
            look_every: Duration::from_secs(1),
        }
    }
}

/// Publishes the ledger.
pub struct Relay {
    history: Arc<dyn History>,
    head: watch::Receiver<Position>,
    connection: Connection,
    settings: Settings,
    random: Box<dyn FnMut() -> u64 + Send>,
    health: watch::Sender<Health>,
    /// How often in a row another relay was faster.
    losses: u32,
    /// Whether another relay published an event of this window.
    is_contested: bool,
    /// The event that the stream refused last.
    refused: Option<Position>,
}

impl Relay {
    /// A relay and its health. `random` chooses the positions to compare.
    pub fn new(
        history: Arc<dyn History>,
        connection: Connection,
        settings: Settings,
        random: impl FnMut() -> u64 + Send + 'static,
    ) -> (Self, watch::Receiver<Health>) {
        let (health, receiver) = watch::channel(Health {
            published: 0,
            state: State::Waiting {
                error: "the stream has not been checked yet".to_owned(),
            },
        });
        let relay = Self {
            head: history.watch_head(),
            history,
            connection,
            settings,
            random: Box::new(random),
            health,
            losses: 0,
            is_contested: false,
            refused: None,
        };
        (relay, receiver)
    }

    /// Publishes, through outages. Returns only when stream and ledger contradict each other, or
    /// when the ledger contradicts itself; the error is already in the log and in the health.
    pub async fn run(mut self) -> Error {
        let mut backoff = Backoff::default();
        loop {
            let session = AssertUnwindSafe(self.session()).catch_unwind().await;
            let error = match session {
                Ok(Err(error)) => error,
                Ok(Ok(never)) => match never {},
                Err(_) => Error::Panicked,
            };
            let message = chain(&error);
            if !error.is_passing() {
                tracing::error!(
                    error = message,
                    "The relay has halted: nothing is published until it is restarted; commands still work"
                );
                let reason = message;
                self.health
                    .send_modify(|health| health.state = State::Halted { reason });
                return error;
            }
            if matches!(self.health.borrow().state, State::Running | State::Standby) {
                backoff.succeeded();
            }
            if matches!(error, Error::Lost { .. }) {
                // Several relays cause this all the time, and so does a lost tail that is about to
                // heal.
                tracing::debug!(error = message, "The relay checks the stream again");
            } else {
                if backoff.failed() {
                    tracing::warn!(error = message, "The relay waits and tries again");
                }
                let error = message;
                self.health
                    .send_modify(|health| health.state = State::Waiting { error });
            }
            backoff.wait().await;
        }
    }

    /// Runs all steps until one fails.
    async fn session(&mut self) -> Result<Infallible, Error> {
        let stream = self.connection.make(self.settings.replicas).await?;
        loop {
            let mut at = if self.losses < LOSSES {
                self.locate(&stream).await?
            } else {
                self.stand_by(&stream).await?
            };
            self.sample(&stream, at).await?;
            let check_at = Instant::now() + self.settings.check_every;
            while self.losses < LOSSES && Instant::now() < check_at {
                at = self.publish(&stream, at, check_at).await?;
                self.report(at, State::Running);
                let moved = self.head.wait_for(|head| *head > at);
                if let Ok(Err(_)) = tokio::time::timeout_at(check_at, moved).await {
                    return Err(feed::Error::Closed.into());
                }
            }
        }
    }

    fn report(&self, published: Position, state: State) {
        let health = Health { published, state };
        self.health.send_if_modified(|now| {
            let is_new = *now != health;
            *now = health;
            is_new
        });
    }

    /// Steps 1 to 3: the end of the stream, if publishing may continue from there.
    async fn locate(&mut self, stream: &LedgerStream) -> Result<Position, Error> {
        loop {
            let last = stream.bounds().await?.last;
            // Read after the stream's end: every event published by then was in the ledger before.
            let head = self.history.head().await?.position;
            if last > head {
                return Err(Error::Ahead { last, head });
            }
            if last == 0 || self.compare(stream, last).await? {
                return Ok(last);
            }
            // Another relay may have filled a small stream meanwhile, which dropped this event.
            if stream.bounds().await?.last == last {
                return Err(Error::Diverged {
                    position: last,
                    reason: "the message is missing".to_owned(),
                });
            }
        }
    }

    /// Whether the stream holds the event of a position. `false` means that it holds nothing there.
    async fn compare(&mut self, stream: &LedgerStream, position: Position) -> Result<bool, Error> {
        let Some(message) = stream.message(position).await? else {
            return Ok(false);
        };
        let events = feed::read_after(&*self.history, position - 1, 1).await?;
        match difference(&message, &events[0]) {
            None => Ok(true),
            Some(reason) => Err(Error::Diverged { position, reason }),
        }
    }

    /// Compares some positions. An event missing inside the stream cannot be published again,
    /// because its sequence is used up; followers of the stream read that event from the ledger.
    async fn sample(&mut self, stream: &LedgerStream, last: Position) -> Result<(), Error> {
        let first = stream.bounds().await?.first.max(1);
        for _ in 0..SAMPLES {
            if first > last {
                return Ok(());
            }
            let position = first + (self.random)() % (last - first + 1);
            if !self.compare(stream, position).await? && stream.bounds().await?.first <= position {
                tracing::warn!(position, "An event is missing inside the stream");
            }
        }
        Ok(())
    }

    /// Leaves publishing to another relay as long as that one publishes.
    async fn stand_by(&mut self, stream: &LedgerStream) -> Result<Position, Error> {
        tracing::info!("Another relay publishes: this one stands by");
        let mut stalls = 0;
        let mut last = self.locate(stream).await?;
        while stalls < STALLS {
            self.report(last, State::Standby);
            tokio::time::sleep(self.settings.look_every).await;
            let now = self.locate(stream).await?;
            let head = self.history.head().await?.position;
            stalls = if now == last && now < head {
                stalls + 1
            } else {
                0
            };
            last = now;
        }
        tracing::info!(position = last, "No other relay publishes: this one does");
        self.losses = 0;
        Ok(last)
    }

    /// Steps 4 to 6: publishes the events after a position, until the ledger's head is reached or a
    /// check is due, and until nothing is in flight.
    async fn publish(
        &mut self,
        stream: &LedgerStream,
        after: Position,
        until: Instant,
    ) -> Result<Position, Error> {
        let mut window = Window::default();
        self.is_contested = false;
        match self.fill(stream, &mut window, after, until).await {
            Ok(at) => {
                if self.is_contested {
                    self.losses += 1;
                } else if at > after {
                    self.losses = 0;
                }
                Ok(at)
            }
            Err(error) => {
                // Messages in flight must not arrive after the stream's end was read again. Each
                // may take until its time-out, so all are awaited together.
                let left = window.sent.drain(..).map(Sent::answered);
                for (position, answer) in join_all(left).await {
                    match self.settled(position, answer) {
                        Err(halt) if !halt.is_passing() => return Err(halt),
                        Ok(()) | Err(_) => {}
                    }
                }
                let Error::Lost { position } = error else {
                    return Err(error);
                };
                let was_refused = self.refused.replace(position) == Some(position);
                if was_refused && position == after + 1 {
                    return Err(Error::Refused { position });
                }
                self.losses += 1;
                Err(error)
            }
        }
    }

    async fn fill(
        &mut self,
        stream: &LedgerStream,
        window: &mut Window,
        after: Position,
        until: Instant,
    ) -> Result<Position, Error> {
        let mut sent = after;
        loop {
            let head = *self.head.borrow();
            if sent >= head || Instant::now() >= until {
                break;
            }
            if head - sent <= PAGE as u64 {
                let events = feed::read_until(&*self.history, sent, head, PAGE).await?;
                sent = self.send(stream, window, events).await?;
                continue;
            }
            // For a backlog after an outage: the next events are read while these are published.
            let mut pages = ReadAhead::new(Arc::clone(&self.history), sent, head);
            while Instant::now() < until
                && let Some(events) = pages.next().await?
            {
                sent = self.send(stream, window, events).await?;
            }
        }
        while self.settle(window).await? {}
        Ok(sent)
    }

    /// Publishes events, as many at once as the window has room for. Returns the position of the
    /// last.
    async fn send(
        &mut self,
        stream: &LedgerStream,
        window: &mut Window,
        events: Vec<StoredEvent>,
    ) -> Result<Position, Error> {
        let mut sent = 0;
        for event in events {
            while !window.has_room_for(&event) {
                self.settle(window).await?;
            }
            fail_point::pass(FailPoint::BeforePublish);
            window.send(stream, &event).await?;
            sent = event.position;
        }
        Ok(sent)
    }

    /// Waits for the oldest acknowledgement. Returns `false` when nothing is in flight.
    async fn settle(&mut self, window: &mut Window) -> Result<bool, Error> {
        let Some(sent) = window.sent.pop_front() else {
            return Ok(false);
        };
        window.bytes -= sent.bytes;
        let (position, answer) = sent.answered().await;
        self.settled(position, answer)?;
        Ok(true)
    }

    fn settled(
        &mut self,
        position: Position,
        answer: Result<PublishAck, PublishError>,
    ) -> Result<(), Error> {
        match answer {
            Ok(ack) if ack.sequence == position => {
                fail_point::pass(FailPoint::AfterPublish);
                self.is_contested |= ack.duplicate;
                self.health
                    .send_modify(|health| health.published = position);
                Ok(())
            }
            Ok(ack) => Err(Error::Misplaced {
                position,
                sequence: ack.sequence,
            }),
            Err(error) if is_wrong_last_sequence(&error) => Err(Error::Lost { position }),
            Err(source) => Err(Error::Unacknowledged { position, source }),
        }
    }
}

/// The messages that are sent and not acknowledged, in the order of positions.
#[derive(Default)]
struct Window {
    sent: VecDeque<Sent>,
    bytes: usize,
}

struct Sent {
    position: Position,
    bytes: usize,
    answer: PublishAckFuture,
}

impl Sent {
    async fn answered(self) -> (Position, Result<PublishAck, PublishError>) {
        (self.position, self.answer.await)
    }
}

impl Window {
    /// There is always room for one event.
    fn has_room_for(&self, event: &StoredEvent) -> bool {
        let bytes = self.bytes + event.envelope.len();
        self.sent.is_empty() || (self.sent.len() < WINDOW && bytes <= WINDOW_BYTES)
    }

    async fn send(&mut self, stream: &LedgerStream, event: &StoredEvent) -> Result<(), Error> {
        let position = event.position;
        let bytes = event.envelope.len();
        let answer = stream
            .publish(event)
            .await
            .map_err(|source| Error::Unacknowledged { position, source })?;
        self.bytes += bytes;
        self.sent.push_back(Sent {
            position,
            bytes,
            answer,
        });
        Ok(())
    }
}

/// Newer clusters use another code for it.
fn is_wrong_last_sequence(error: &PublishError) -> bool {
    let code = || {
        let source = std::error::Error::source(error)?;
        let error = source.downcast_ref::<jetstream::Error>()?;
        Some(error.error_code())
    };
    error.kind() == PublishErrorKind::WrongLastSequence
        || code() == Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT)
}

#[cfg(test)]
mod tests;
