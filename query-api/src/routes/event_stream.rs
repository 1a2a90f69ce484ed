//! `GET /api/v1/events/stream`: every event as it is committed, as server-sent events. Their ids are
//! positions, so whoever was cut goes on where it was.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use events::StoredEvent;
use events::feed::{self, Feed as _, SharedFeed};
use futures::stream::unfold;
use http_kit::caller::Role;
use http_kit::error::{ApiError, chain};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::audit::{Asked, head, within};
use super::{position, position_header};
use crate::QueryApi;

/// How often a stream that has nothing to say says so.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a reader may leave an event that it was given before it is cut. One that reads nothing at all
/// is cut by the server, as every client is.
const TAKEN: Duration = Duration::from_secs(10);
/// After how long a client that was cut comes back, and how long a ledger that is away is left alone.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn follow(
    State(api): State<QueryApi>,
    mut asked: Asked,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    asked.require(&[Role::Service, Role::Auditor, Role::Admin])?;
    let parameters = &mut asked.parameters;
    let after = parameters.optional("after", |value| position(http_kit::fields::string(value)?));
    let last_event_id = position_header(&headers, "last-event-id").unwrap_or_else(|problem| {
        parameters.problem("Last-Event-ID", problem);
        None
    });
    asked.finish()?;
    let place = api.streams.follower()?;
    asked.record(&api, None).await?;

    let head = head(&*api.history).await?;
    // A client that comes back asks as it did at first, and says how far it has come.
    let after = match (last_event_id, after) {
        (Some(position), _) => within("Last-Event-ID", position, head).map(|()| position),
        (None, Some(position)) => within("after", position, head).map(|()| position),
        (None, None) => Ok(head),
    }?;
    let following = Following {
        feed: api.streams.feed(after),
        begin: Some(Event::default().id(after.to_string()).retry(AGAIN)),
        events: Vec::new().into_iter(),
        given: None,
        stopping: api.streams.stopping(),
        _place: place,
    };
    let stream = unfold(following, async |mut following| {
        let event = following.next().await?;
        Some((Ok::<_, Infallible>(event), following))
    });
    let keep_alive = KeepAlive::new().interval(HEARTBEAT).text("heartbeat");
    let mut response = Sse::new(stream).keep_alive(keep_alive).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that collect answers would keep events back.
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok(response)
}

/// One stream. It holds a batch at the most; what its reader does not take yet stays in the ledger.
struct Following {
    feed: SharedFeed,
    /// Tells the client where it is, before there is any event.
    begin: Option<Event>,
    events: std::vec::IntoIter<StoredEvent>,
    /// When the last event was given.
    given: Option<Instant>,
    stopping: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Following {
    /// The next event; asked for when the reader has taken the one before.
    async fn next(&mut self) -> Option<Event> {
        if let Some(begin) = self.begin.take() {
            return Some(begin);
        }
        if self.given.is_some_and(|given| given.elapsed() > TAKEN) {
            tracing::info!("A slow reader of events was cut");
            return None;
        }
        let stopping = self.stopping.clone();
        let event = stopping.run_until_cancelled(self.wait()).await??;
        self.given = Some(Instant::now());
        Some(event)
    }

    async fn wait(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.next() {
                return framed(&event);
            }
            match self.feed.next().await {
                Ok(events) => self.events = events.into_iter(),
                Err(feed::Error::Store(error)) => {
                    tracing::warn!(
                        error = chain(&error),
                        "Streams of events wait for the ledger"
                    );
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error @ (feed::Error::Gap { .. } | feed::Error::Closed)) => {
                    tracing::error!(error = chain(&error), "A stream of events ended");
                    return None;
                }
            }
        }
    }
}

/// The exact envelope. `None` ends the stream: bytes that are no text cannot be sent, and are not skipped.
fn framed(event: &StoredEvent) -> Option<Event> {
    match std::str::from_utf8(&event.envelope) {
        Ok(envelope) => {
            let framed = Event::default().id(event.position.to_string());
            Some(framed.event(&event.event_type).data(envelope))
        }
        Err(error) => {
            let position = event.position;
            tracing::error!(%error, position, "A stream of events ended at an event that is no text");
            None
        }
    }
}
