//! The relay: from the ledger into the JetStream stream, each event at its own sequence.
//!
//! ```text
//! 1 last = the stream's last sequence; head = the ledger's head
//! 2 last > head                                              → halt: the stream is ahead
//! 3 the message at last is missing, or is not event(last)    → halt: they have diverged
//! 4 publish last + 1 .. head in order, a window in flight, each expecting its position − 1 before it
//! 5 an acknowledgement at another sequence                   → halt
//! 6 wrong last sequence, time-out, no connection             → drain the window, back off, go to 1
//! 7 idle: wait for the head; now and then 1–3 again, and compare some random positions
//! ```
//!
//! The stream itself says how far publishing has come, so there is nothing to remember and nothing
//! to lose: a server restored from an old copy, or an empty one, is filled up again by the same steps.
//!
//! Any number of relays may run at once: the server takes each event once and refuses the others.
//! That would be wasted work, so a relay that lost `LOSSES` times in a row stands by: it looks at
//! the stream now and then, and publishes again when the stream has been behind and has not moved
//! for `STALLS` looks. There is no lease to expire and no clock to compare, and two relays that take
//! over at once do no harm.

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

/// Events that are read at once.
const PAGE: usize = 256;
/// Events, and bytes of their envelopes, that are sent and not acknowledged.
const WINDOW: usize = 1_024;
const WINDOW_BYTES: usize = 8 << 20;
/// Positions that are compared at each check.
const SAMPLES: usize = 8;
/// How often in a row another relay must have been faster before this one stands by.
const LOSSES: u32 = 3;
/// How many looks in a row must have found the stream behind and unmoved before a relay takes over.
const STALLS: u32 = 3;

/// Why the relay cannot go on, or not now.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger failed, or lacks an event.
    #[error(transparent)]
    Ledger(#[from] feed::Error),
    /// The stream failed, or is not as it has to be.
    #[error(transparent)]
    Stream(#[from] stream::Error),
    /// It is not known whether an event was stored.
    #[error("position {position} was not acknowledged")]
    Unacknowledged {
        /// The event's.
        position: Position,
        /// What came instead.
        source: PublishError,
    },
    /// The stream did not end just before an event when it came: another relay was faster, or the
    /// end of the stream was lost.
    #[error("the stream did not end before position {position}")]
    Lost {
        /// The event's.
        position: Position,
    },
    /// The stream ends just before an event and refuses it all the same.
    #[error(
        "the stream ends before position {position} but refuses it; if it was purged, restart NATS"
    )]
    Refused {
        /// The event's.
        position: Position,
    },
    /// The stream holds what the ledger does not: the ledger was restored from a backup, or somebody
    /// else has published.
    #[error("the stream is ahead of the ledger: it ends at {last}, the ledger at {head}")]
    Ahead {
        /// Where the stream ends.
        last: Position,
        /// Where the ledger ends.
        head: Position,
    },
    /// The stream and the ledger hold different things at one position.
    #[error("the stream has diverged from the ledger at position {position}: {reason}")]
    Diverged {
        /// Where.
        position: Position,
        /// What is wrong with the message there.
        reason: String,
    },
    /// The server stored an event at another sequence than its position.
    #[error("position {position} was stored at sequence {sequence}")]
    Misplaced {
        /// The event's.
        position: Position,
        /// Where it was stored.
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
    /// Whether trying again can help. Where stream and ledger contradict each other, publishing more
    /// would only bury it.
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

/// How the relay is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Up to where the stream was last seen to hold the ledger.
    pub published: Position,
    /// Whether it publishes.
    pub state: State,
}

/// Whether a relay publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It does.
    Running,
    /// Another relay does; this one takes over when that one stops.
    Standby,
    /// It cannot, and tries again. Commands are taken and the ledger grows.
    Waiting {
        /// What is wrong.
        error: String,
    },
    /// It does not until it is started again, and a person has to look. Commands are taken and the
    /// ledger grows.
    Halted {
        /// Why.
        reason: String,
    },
}

/// How a relay works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// On how many servers a new stream is kept.
    pub replicas: usize,
    /// How often stream and ledger are compared.
    pub check_every: Duration,
    /// How often a relay that stands by looks at the stream.
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
    /// A relay and its health. `random` chooses the positions that are compared.
    pub fn new(
        history: Arc<dyn History>,
        connection: Connection,
        settings: Settings,
        random: impl FnMut() -> u64 + Send + 'static,
    ) -> (Self, watch::Receiver<Health>) {
        let (health, receiver) = watch::channel(Health {
            published: 0,
            state: State::Waiting {
                error: "the stream has not been looked at yet".to_owned(),
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

    /// Publishes, whatever is away for a while. Returns only when stream and ledger contradict each
    /// other, or the ledger itself; it has said so, loudly, in the log and in its health.
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
                    "The relay has halted: nothing is published any more until it is started again; commands still work"
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
                // What several relays do to each other all day, or a lost tail that is about to heal.
                tracing::debug!(error = message, "The relay looks at the stream again");
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

    /// All steps, until something fails.
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

    /// Steps 1 to 3: where the stream ends, if it may be continued from there.
    async fn locate(&mut self, stream: &LedgerStream) -> Result<Position, Error> {
        loop {
            let last = stream.bounds().await?.last;
            // Read after the stream's end: what was published by then was in the ledger before.
            let head = self.history.head().await?.position;
            if last > head {
                return Err(Error::Ahead { last, head });
            }
            if last == 0 || self.compare(stream, last).await? {
                return Ok(last);
            }
            // Another relay may have filled a small stream meanwhile, so that this event was dropped.
            if stream.bounds().await?.last == last {
                return Err(Error::Diverged {
                    position: last,
                    reason: "the message is missing".to_owned(),
                });
            }
        }
    }

    /// Whether the stream holds the event of a position. `false`: it holds nothing there.
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

    /// Compares some positions. A message that was lost among others cannot be put back, as its
    /// sequence is used up; those who follow the stream read that event from the ledger.
    async fn sample(&mut self, stream: &LedgerStream, last: Position) -> Result<(), Error> {
        let first = stream.bounds().await?.first.max(1);
        for _ in 0..SAMPLES {
            if first > last {
                return Ok(());
            }
            let position = first + (self.random)() % (last - first + 1);
            if !self.compare(stream, position).await? && stream.bounds().await?.first <= position {
                tracing::warn!(position, "The stream has lost an event between others");
            }
        }
        Ok(())
    }

    /// Leaves publishing to another relay for as long as that one does it.
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

    /// Steps 4 to 6: publishes what comes after a position, until the ledger's head is reached or it
    /// is time for a check, and nothing is in flight any more.
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
                // What is still in flight must not land after the stream's end was read again. Each may take until its
                // time-out, so they are waited for together.
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
            // What has gathered while the stream was away: the next events are read while these are published.
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

    /// Publishes events, as many at once as the window has room for; the position of the last.
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

    /// Waits for the oldest acknowledgement. `false`: nothing is in flight.
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

/// What was sent and is not acknowledged, in the order of positions.
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
    /// There is always room for one.
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

/// Newer clusters have a code of their own for it.
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
