//! `GET /api/v1/events/stream`: every event as it is committed, as server-sent events. Their ids are positions, so a
//! client continues after a disconnection without a gap.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use events::{Position, StoredEvent};
use futures::stream::unfold;
use http_kit::caller::Role;
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::openapi::{self, Fails, Refuses};
use http_kit::query::{Kind as _, Query as _, optional};
use http_kit::query_parameters;
use http_kit::text::Text;
use ledger::feed::{self, Feed as _, SharedFeed};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::{self as described, RefOr};
use utoipa::{IntoParams, IntoResponses};

use super::audit::{AuditedRead, head, within};
use super::{POSITION, position_header};
use crate::{Shared, Streams};

/// The path of the stream.
pub(crate) const PATH: &str = "/api/v1/events/stream";
/// The interval of comments on an idle stream.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(15);
/// The longest time in which a client may leave an event unread before it is disconnected. The server disconnects every
/// client that stops reading entirely.
pub(crate) const TAKEN: Duration = Duration::from_secs(10);
/// The pause before a client connects again, and before the ledger is asked again after an error.
pub(crate) const AGAIN: Duration = Duration::from_secs(1);

/// Follow events
///
/// Every event as it is committed, as server-sent events: `id` is the position, `event` the type, `data` the stored
/// CloudEvents envelope. Without `after` and `Last-Event-ID`, the stream contains only new events. A heartbeat is sent
/// every 15 seconds. The stream continues until either side ends it. After a disconnection, continue with
/// `Last-Event-ID`.
#[utoipa::path(
    get,
    path = "/api/v1/events/stream",
    operation_id = "streamEventsV1",
    tag = "Events",
    params(From, LastEventId, AuditedRead),
    responses(Stream, Fails<(AuditedRead, From, Streams)>),
    security(("bearer" = []))
)]
pub(super) async fn follow(
    State(api): State<Shared>,
    mut read: AuditedRead,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    read.require(&[Role::Service, Role::Auditor, Role::Admin])?;
    let from = From::take(&mut read.fields);
    let last_event_id = position_header(&headers, "last-event-id").unwrap_or_else(|problem| {
        read.fields.problem("Last-Event-ID", problem);
        None
    });
    read.parameters::<()>()?;
    let after = from.and_then(|From { after }| after);
    let slot = api.streams.follower()?;
    if let Some(position) = last_event_id {
        read.mention("lastEventId", position);
    }
    read.record(&api, None).await?;

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
        _slot: slot,
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

query_parameters! {
    /// The beginning of a stream.
    struct From {
        /// Begins with the event after this position.
        after: Option<Position> = optional("after", POSITION),
    }
}

/// The beginning of a stream for a client that connects again.
struct LastEventId;

impl IntoParams for LastEventId {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![openapi::header(
            "Last-Event-ID",
            POSITION.schema(),
            "The same, for a client that connects again. It has precedence over `after`.",
        )]
    }
}

impl Refuses for From {
    fn refusals() -> Vec<ApiError> {
        let bad = Text::new("BEYOND_END").with("max", 42);
        vec![ApiError::new(Code::ValidationFailed).field("after", bad)]
    }
}

/// A stream in the OpenAPI document.
struct Stream;

impl IntoResponses for Stream {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        let example = "id: 41\nretry: 1000\n\nid: 42\nevent: username-changed\ndata: {\"specversion\":\"1.0\",\"type\":\"username-changed\"}\n\n: heartbeat\n\n";
        let answer = openapi::stream(
            "Events, until either side ends the stream.",
            "text/event-stream",
            example,
        );
        BTreeMap::from([("200".to_owned(), answer.build().into())])
    }
}

/// One stream. It keeps at most one batch in memory. Later events stay in the ledger until the client reads on.
struct Following {
    feed: SharedFeed,
    /// Tells the client its position before the first event.
    begin: Option<Event>,
    events: std::vec::IntoIter<StoredEvent>,
    /// The time at which the last event was sent.
    given: Option<Instant>,
    stopping: CancellationToken,
    _slot: OwnedSemaphorePermit,
}

impl Following {
    /// The next event. It is requested after the client has read the previous one.
    async fn next(&mut self) -> Option<Event> {
        if let Some(begin) = self.begin.take() {
            return Some(begin);
        }
        if self.given.is_some_and(|given| given.elapsed() > TAKEN) {
            tracing::info!("A slow client of the event stream was disconnected");
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
                Err(error @ (feed::Error::Store(_) | feed::Error::Stream(_))) => {
                    tracing::warn!(
                        error = events::chain(&error),
                        "Streams of events wait for the ledger"
                    );
                    tokio::time::sleep(AGAIN).await;
                }
                Err(
                    error @ (feed::Error::Gap { .. }
                    | feed::Error::Foreign(_)
                    | feed::Error::Closed),
                ) => {
                    tracing::error!(error = events::chain(&error), "A stream of events ended");
                    return None;
                }
            }
        }
    }
}

/// The exact envelope. `None` ends the stream: bytes that are not text cannot be sent, and they are never skipped.
fn framed(event: &StoredEvent) -> Option<Event> {
    match std::str::from_utf8(&event.envelope) {
        Ok(envelope) => {
            let framed = Event::default().id(event.position.to_string());
            Some(framed.event(&event.event_type).data(envelope))
        }
        Err(error) => {
            let position = event.position;
            tracing::error!(%error, position, "A stream of events ended at an event that is not text");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use http_kit::testing::{Ask, refuses, token};

    use super::*;
    use crate::testing::{Api, JOHN, auditor, called, user};

    fn stream(query: &str) -> Ask {
        auditor(&format!("/api/v1/events/stream?{query}"))
    }

    /// Who reads a stream, a message at a time.
    struct Reader {
        body: Body,
        text: String,
    }

    impl Reader {
        async fn open(api: &Api, ask: Ask) -> Self {
            let response = ask.open(&api.router).await;
            assert_eq!(response.status(), 200);
            Self {
                body: response.into_body(),
                text: String::new(),
            }
        }

        /// The next message without the empty line at its end; `None` when the stream has ended.
        async fn next(&mut self) -> Option<String> {
            loop {
                if let Some(end) = self.text.find("\n\n") {
                    let message = self.text.drain(..end + 2).collect::<String>();
                    return Some(message[..end].to_owned());
                }
                let bytes = self.body.frame().await?.unwrap().into_data().unwrap();
                self.text.push_str(std::str::from_utf8(&bytes).unwrap());
            }
        }

        /// The position of the next event.
        async fn position(&mut self) -> Option<u64> {
            let message = self.next().await?;
            let id = message.lines().find_map(|line| line.strip_prefix("id: "));
            Some(id.unwrap_or_else(|| panic!("{message}")).parse().unwrap())
        }
    }

    #[tokio::test]
    async fn a_message_is_an_event_with_its_position_type_and_envelope() {
        let api = Api::with_users().await;
        let response = stream("after=1").open(&api.router).await;
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store"),
            ("x-accel-buffering", "no"),
        ] {
            assert_eq!(response.headers()[name], value);
        }
        let mut reader = Reader::open(&api, stream("after=1")).await;
        assert_eq!(reader.next().await.unwrap(), "id: 1\nretry: 1000");
        for (position, event_type) in [(2, "user-registered"), (3, "photo-changed")] {
            let envelope = api.envelope(position).await;
            let message = format!("id: {position}\nevent: {event_type}\ndata: {envelope}");
            assert_eq!(reader.next().await.unwrap(), message);
        }
    }

    #[tokio::test]
    async fn a_new_stream_begins_at_the_head_and_shows_what_comes() {
        let api = Api::with_users().await;
        let mut readers = Vec::new();
        for _ in 0..3 {
            readers.push(Reader::open(&api, stream("")).await);
        }
        for reader in &mut readers {
            assert_eq!(reader.position().await, Some(3), "where it begins");
        }
        api.append_many(600).await;
        for reader in &mut readers {
            for position in 4..=603 {
                assert_eq!(reader.position().await, Some(position));
            }
        }
    }

    #[tokio::test]
    async fn who_comes_back_goes_on_after_the_last_event_that_it_saw() {
        let api = Api::with_users().await;
        // Its address is that of the first time.
        let ask = stream("after=0").header("last-event-id", "2");
        let mut reader = Reader::open(&api, ask).await;
        assert_eq!(reader.position().await, Some(2), "where it begins");
        assert_eq!(reader.position().await, Some(3));
    }

    #[tokio::test]
    async fn a_cursor_that_is_none_or_beyond_the_head_is_refused() {
        let api = Api::with_users().await;
        let code = "VALIDATION_FAILED";
        let number = "must be a whole number from 0 to 9223372036854775807";
        let sayi = "0 ile 9223372036854775807 arasında bir tam sayı olmalıdır";
        let newest = "must be at most 3, which is the newest";
        let yeni = "en fazla, en yenisi olan 3 olmalıdır";
        for (ask, field, english, turkish) in [
            (stream("after=4"), "after", newest, yeni),
            (stream("after=x"), "after", number, sayi),
            (
                stream("").header("last-event-id", "4"),
                "Last-Event-ID",
                newest,
                yeni,
            ),
            (
                stream("after=0").header("last-event-id", "4"),
                "Last-Event-ID",
                newest,
                yeni,
            ),
            (
                stream("").header("last-event-id", ""),
                "Last-Event-ID",
                number,
                sayi,
            ),
            (
                stream("").header("last-event-id", "-1"),
                "Last-Event-ID",
                number,
                sayi,
            ),
            (
                stream("").header("last-event-id", b"\xff"),
                "Last-Event-ID",
                number,
                sayi,
            ),
        ] {
            let (english, turkish) = (format!("{field}: {english}"), format!("{field}: {turkish}"));
            let english = ["Validation failed", &english];
            let turkish = ["Doğrulama başarısız", &turkish];
            refuses(&api.router, &ask, 400, code, &english, &turkish).await;
        }
    }

    #[tokio::test]
    async fn it_is_for_services_and_auditors() {
        let api = Api::with_users().await;
        let uri = "/api/v1/events/stream";
        for role in [Role::Service, Role::Auditor, Role::Admin] {
            let ask = Ask::new("GET", uri).bearer(&token("indexer", &[role]));
            let mut reader = Reader::open(&api, ask).await;
            assert_eq!(reader.position().await, Some(3));
        }
        let recorded = api.trail.all().await;
        assert_eq!(recorded.len(), 3, "each is recorded");
        let code = "INSUFFICIENT_PERMISSIONS";
        let (english, turkish) = (["Insufficient permissions"], ["Yetersiz yetki"]);
        refuses(&api.router, &user(JOHN, uri), 403, code, &english, &turkish).await;
    }

    #[tokio::test]
    async fn a_quiet_stream_shows_that_it_lives() {
        let api = Api::with_users().await;
        let mut reader = Reader::open(&api, stream("")).await;
        assert_eq!(reader.position().await, Some(3));
        // From here on nothing touches the disk, so time may jump.
        tokio::time::pause();
        for _ in 0..3 {
            let began = Instant::now();
            assert_eq!(reader.next().await.unwrap(), ": heartbeat");
            let waited = began.elapsed();
            assert!(
                waited.abs_diff(HEARTBEAT) < Duration::from_millis(5),
                "{waited:?}"
            );
        }
        tokio::time::resume();
        api.append(JOHN, called("John", "Johnny")).await;
        assert_eq!(reader.position().await, Some(4));
    }

    #[tokio::test]
    async fn a_slow_reader_is_cut_and_loses_nothing() {
        let api = Api::with_users().await;
        api.append_many(100).await;
        let mut reader = Reader::open(&api, stream("after=0")).await;
        for position in 0..=1 {
            assert_eq!(reader.position().await, Some(position));
        }
        // The others are in memory, so time may jump.
        tokio::time::pause();
        for position in 2..=50 {
            assert_eq!(reader.position().await, Some(position));
        }
        tokio::time::advance(TAKEN).await;
        assert_eq!(reader.position().await, Some(51), "just in time");
        tokio::time::advance(TAKEN + Duration::from_millis(1)).await;
        assert_eq!(reader.position().await, None);
        tokio::time::resume();
        let ask = stream("after=0").header("last-event-id", "51");
        let mut reader = Reader::open(&api, ask).await;
        for position in 51..=103 {
            assert_eq!(reader.position().await, Some(position));
        }
    }

    #[tokio::test]
    async fn streams_end_when_the_service_stops() {
        let api = Api::with_users().await;
        api.append_many(10).await;
        let mut idle = Reader::open(&api, stream("")).await;
        let mut busy = Reader::open(&api, stream("after=0")).await;
        assert_eq!(idle.position().await, Some(13));
        assert_eq!(busy.position().await, Some(0));
        api.stopping.cancel();
        assert_eq!(idle.position().await, None);
        assert_eq!(busy.position().await, None);
    }

    #[tokio::test]
    async fn more_streams_than_there_are_places_for_are_refused_until_one_ends() {
        let api = Api::with_users().await;
        let mut open = Vec::new();
        for _ in 0..64 {
            open.push(Reader::open(&api, stream("")).await);
        }
        let code = "TOO_MANY_STREAMS";
        let english = [
            "The service cannot answer right now; try again shortly",
            "Too many streams are open; try again shortly.",
        ];
        let turkish = [
            "Hizmet şu anda yanıt veremiyor; az sonra yeniden deneyin",
            "Çok fazla akış açık; az sonra yeniden deneyin.",
        ];
        refuses(&api.router, &stream(""), 503, code, &english, &turkish).await;
        let answer = api.send(stream("")).await;
        assert_eq!(answer.header("retry-after"), Some("5"));
        drop(open.pop());
        Reader::open(&api, stream("")).await;
    }
}
