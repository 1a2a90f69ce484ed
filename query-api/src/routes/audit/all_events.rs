//! `GET /api/v1/audit/events`: what happened to everybody, by position: a page as JSON, or all of it as
//! NDJSON.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use events::feed::{self, follow};
use events::store::{History, position_at};
use events::{Position, StoredEvent, Time, UserId};
use futures::stream::try_unfold;
use http_kit::answer::Answer;
use http_kit::client::preferred;
use http_kit::code::Code;
use http_kit::error::{ApiError, chain};
use http_kit::fields::Fields;
use http_kit::text::Text;
use serde::Deserialize;

use super::{
    Asked, Item, MAX_LIMIT, Page, event_type, head, number, place, text, time, user_id, within,
};
use crate::QueryApi;

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
/// Events looked at for one page. When few of them match, the page is short, or empty, and says where to
/// go on.
const LOOKED_AT: usize = 5_000;
/// Events held at once.
const BATCH: usize = 256;

pub(in crate::routes) async fn list(
    State(api): State<QueryApi>,
    mut asked: Asked,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    asked.require_auditor()?;
    let form = preferred(&headers, &[JSON, LINES]).ok_or_else(|| {
        let allowed = Text::new("ACCEPTABLE").with("allowed", [JSON, LINES].join(", "));
        ApiError::new(Code::NotAcceptable).because(allowed)
    })?;
    let parameters = &mut asked.parameters;
    let after = parameters.optional("after", |value| place(value, 0));
    // A page is held in memory, and a stream is not.
    let most = if form == LINES {
        i64::MAX.unsigned_abs()
    } else {
        MAX_LIMIT
    };
    let limit = parameters.optional("limit", |value| number(value, 1, most));
    let (from, to) = times(parameters);
    let filter = Filter {
        user: parameters.optional("user", user_id),
        event_type: parameters.optional("type", event_type),
        actor: parameters.optional("actor", text),
        request_id: parameters.optional("requestId", text),
    };
    asked.finish()?;
    let place = (form == LINES).then(|| api.streams.export()).transpose()?;
    asked.record(&api, filter.user).await?;

    let head = head(&*api.history).await?;
    within("after", after.unwrap_or(0), head)?;
    let walk = Walk {
        after: after.unwrap_or(0).max(before(&api, from).await?),
        last: match to {
            Some(to) => at(&api, to).await?.min(head),
            None => head,
        },
        history: Arc::clone(&api.history),
        filter,
        batch: BATCH,
    };
    match place {
        Some(place) => Ok(lines(walk, limit, place)),
        None => page(&api, walk, limit).await,
    }
}

/// The first and the last time of recording; both belong to the answer.
fn times(parameters: &mut Fields) -> (Option<Time>, Option<Time>) {
    let from = parameters.optional("from", time);
    let to = parameters.optional("to", time);
    if let (Some(from), Some(to)) = (from, to)
        && to < from
    {
        parameters.problem("to", Text::new("BEFORE_FROM").with("from", from));
    }
    (from, to)
}

async fn at(api: &QueryApi, time: Time) -> Result<Position, ApiError> {
    let position = position_at(&*api.history, time).await;
    position.map_err(ApiError::unavailable)
}

/// The position before the first event of a time or later.
async fn before(api: &QueryApi, from: Option<Time>) -> Result<Position, ApiError> {
    match from {
        // Times are whole milliseconds.
        Some(from) => at(api, Time::from_millis(from.millis().saturating_sub(1))).await,
        None => Ok(0),
    }
}

/// Which events are asked for.
struct Filter {
    user: Option<UserId>,
    event_type: Option<&'static str>,
    actor: Option<String>,
    request_id: Option<String>,
}

impl Filter {
    /// Whether an event is asked for. One whose envelope says nothing of its caller has none.
    fn takes(&self, event: &StoredEvent) -> bool {
        #[derive(Default, Deserialize)]
        struct Cause<'a> {
            #[serde(borrow)]
            authid: Option<Cow<'a, str>>,
            #[serde(borrow)]
            requestid: Option<Cow<'a, str>>,
        }
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.is_none() || wanted.as_deref() == found
        };
        if self.user.is_some_and(|user| user != event.user_id)
            || self.event_type.is_some_and(|one| one != event.event_type)
        {
            return false;
        }
        if self.actor.is_none() && self.request_id.is_none() {
            return true;
        }
        let cause: Cause<'_> = serde_json::from_slice(&event.envelope).unwrap_or_default();
        is(&self.actor, cause.authid.as_deref()) && is(&self.request_id, cause.requestid.as_deref())
    }

    /// Whether every event is.
    fn takes_all(&self) -> bool {
        self.user.is_none()
            && self.event_type.is_none()
            && self.actor.is_none()
            && self.request_id.is_none()
    }
}

/// The ledger from a position to another, a batch at a time.
struct Walk {
    history: Arc<dyn History>,
    filter: Filter,
    /// Everything up to here was looked at.
    after: Position,
    last: Position,
    batch: usize,
}

impl Walk {
    fn is_over(&self) -> bool {
        self.after >= self.last
    }

    /// The events of the next batch that are asked for.
    async fn next(&mut self) -> Result<Vec<StoredEvent>, feed::Error> {
        let mut events = match self.filter.user {
            Some(user) => {
                let users = [user];
                let read = self.history.read_users(&users, self.after, self.batch);
                let events = read.await?;
                let has_more = events.len() == self.batch;
                let last = events.last().filter(|_| has_more);
                self.after = last.map_or(self.last, |event| event.position);
                events
            }
            None => {
                let events = self.history.read(self.after, self.batch).await?;
                let end = follow(self.after, &events)?;
                if end == self.after {
                    return Err(feed::Error::Gap {
                        expected: end + 1,
                        found: end + 2,
                    });
                }
                self.after = end;
                events
            }
        };
        self.after = self.after.min(self.last);
        events.retain(|event| event.position <= self.last && self.filter.takes(event));
        Ok(events)
    }
}

async fn page(api: &QueryApi, mut walk: Walk, limit: Option<u64>) -> Result<Response, ApiError> {
    let limit = limit.map_or(super::DEFAULT_LIMIT, |limit| {
        usize::try_from(limit).expect("at most 100")
    });
    if walk.filter.takes_all() {
        walk.batch = limit;
    }
    let mut events = Vec::new();
    let mut looked_at = 0;
    while events.len() < limit && looked_at < LOOKED_AT && !walk.is_over() {
        events.extend(walk.next().await.map_err(unreadable)?);
        looked_at += walk.batch;
    }
    let is_cut = events.len() > limit;
    events.truncate(limit);
    let next_after = match events.last() {
        Some(last) if is_cut => last.position,
        _ => walk.after,
    };
    let page = Page {
        items: Item::all(&events)?,
        next_after,
        has_more: next_after < walk.last,
    };
    Ok(Answer::ok(api.clock.now(), &page).into_response())
}

fn unreadable(error: feed::Error) -> ApiError {
    match error {
        feed::Error::Store(error) => ApiError::unavailable(error),
        feed::Error::Gap { .. } | feed::Error::Closed => ApiError::internal(error),
    }
}

/// The stored envelopes, byte for byte, one a line. What cannot be read breaks the answer off, so that
/// nobody takes a part for the whole. `place` is held until the end.
fn lines(walk: Walk, limit: Option<u64>, place: impl Send + 'static) -> Response {
    let last = walk.last;
    let begin = (walk, limit.unwrap_or(u64::MAX), place);
    let lines = try_unfold(begin, |(mut walk, left, place)| async move {
        while left > 0 && !walk.is_over() {
            let mut events = walk.next().await.inspect_err(|error| {
                tracing::error!(error = chain(error), "An export broke off");
            })?;
            if events.is_empty() {
                continue;
            }
            events.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            let left = left - events.len() as u64;
            let mut lines = Vec::with_capacity(events.iter().map(|e| e.envelope.len() + 1).sum());
            for event in &events {
                lines.extend_from_slice(&event.envelope);
                lines.push(b'\n');
            }
            return Ok::<_, feed::Error>(Some((Bytes::from(lines), (walk, left, place))));
        }
        Ok(None)
    });
    let position = [("ledger-position", last.to_string())];
    (position, [(CONTENT_TYPE, LINES)], Body::from_stream(lines)).into_response()
}
