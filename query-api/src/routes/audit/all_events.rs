//! `GET /api/v1/audit/events`: the events of all users by position, as a JSON page or as an NDJSON export.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use events::{Position, Time, UserEvent, UserId};
use futures::stream::try_unfold;
use http_kit::answer::Answer;
use http_kit::client::preferred;
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::openapi::{self, Fails, Refuses};
use http_kit::query::{Kind as _, OneOf, Parsed, Query as _, number, number_from, optional};
use http_kit::query_parameters;
use http_kit::text::Text;
use ledger::feed;
use ledger::store::position_at;
use serde_json::json;
use utoipa::IntoResponses;
use utoipa::openapi::{self as described, RefOr};

use super::walk::{Filter, Walk};
use super::{
    AuditedRead, DEFAULT_LIMIT, EventPage, Item, MAX_LIMIT, NAME, Page, TIME, USER_ID, head, within,
};
use crate::routes::Example as _;
use crate::{QueryApi, Shared, Streams};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
/// The most events that are read for one page. If few of them match, the page is short or empty, and names the position
/// at which to continue.
const LOOKED_AT: usize = 5_000;
/// Events in memory at once.
const BATCH: usize = 256;

/// List the events of all users
///
/// By position. `Accept: application/x-ndjson` gets all matching events up to the newest one, with one stored envelope
/// on each line. An answer that breaks off is incomplete.
#[utoipa::path(
    get,
    path = "/api/v1/audit/events",
    operation_id = "listEventsV1",
    tag = "Audit",
    params(Part, Recorded, Which, AuditedRead),
    responses(Events, Fails<(AuditedRead, Which, Streams)>),
    security(("bearer" = []))
)]
pub(in crate::routes) async fn list(
    State(api): State<Shared>,
    mut read: AuditedRead,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    read.require_auditor()?;
    let form = preferred(&headers, &[JSON, LINES]).ok_or_else(not_acceptable)?;
    let Part { after, limit } = Part::take(&mut read.fields).unwrap_or_default();
    let limit = limit.and_then(|Limit(limit)| {
        // A page is held in memory, and a stream is not.
        let limit = if form == LINES {
            number_from(1).parse(&limit)
        } else {
            number(1, MAX_LIMIT).parse(&limit)
        };
        let bad = |problem| read.fields.problem("limit", problem);
        limit.map_err(bad).ok()
    });
    let Recorded { from, to } = Recorded::take(&mut read.fields).unwrap_or_default();
    if let (Some(from), Some(to)) = (from, to)
        && to < from
    {
        let problem = Text::new("BEFORE_FROM").with("from", from);
        read.fields.problem("to", problem);
    }
    let which: Which = read.parameters()?;
    let filter = Filter {
        user: which.user,
        event_type: which.event_type,
        actor: which.actor,
        request_id: which.request_id,
    };
    let slot = (form == LINES).then(|| api.streams.export()).transpose()?;
    if form == LINES {
        read.mention("accept", LINES);
    }
    read.record(&api, filter.user).await?;

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
    match slot {
        Some(slot) => Ok(lines(walk, limit, slot)),
        None => page(&api, walk, limit).await,
    }
}

query_parameters! {
    /// Where the list begins, and how long it is.
    #[derive(Default)]
    struct Part {
        /// Begins after this position: `nextAfter` of the previous page.
        after: Option<Position> = optional("after", number_from(0)),
        /// Events on a page, at most 100. For `application/x-ndjson` any number is allowed, and the default is all
        /// events.
        limit: Option<Limit> = optional("limit", LIMIT),
    }
}

query_parameters! {
    /// The first and the last time of recording; both belong to the answer.
    #[derive(Default)]
    struct Recorded {
        /// Recorded at this time or later.
        from: Option<Time> = optional("from", TIME),
        /// Recorded at this time or before.
        to: Option<Time> = optional("to", TIME),
    }
}

query_parameters! {
    /// Which events.
    struct Which {
        /// Only events of this user.
        user: Option<UserId> = optional("user", USER_ID),
        /// Only events of this type.
        event_type: Option<&'static str> = optional("type", EVENT_TYPE),
        /// Only events caused by this caller: the subject of the token.
        actor: Option<String> = optional("actor", NAME),
        /// Only events caused by this request.
        request_id: Option<String> = optional("requestId", NAME),
    }
}

const EVENT_TYPE: OneOf<&str> = OneOf(UserEvent::TYPES);

/// A number as it was given: how great it may be depends on the form of the answer.
struct Limit(String);

const LIMIT: Parsed<Limit> = Parsed {
    parse: |text| Ok(Limit(text.to_owned())),
    schema: || json!({"type": "integer", "format": "int64", "minimum": 1, "default": DEFAULT_LIMIT}),
};

impl Refuses for Which {
    fn refusals() -> Vec<ApiError> {
        let bad = EVENT_TYPE.problem();
        vec![
            not_acceptable(),
            ApiError::new(Code::ValidationFailed).field("type", bad),
        ]
    }
}

/// Both formats in the OpenAPI document.
struct Events;

impl IntoResponses for Events {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        let page = EventPage::example();
        let line = format!("{}\n", page["items"][0]["event"]);
        let lines = openapi::text("", LINES, &line).build();
        let mut answer = openapi::answer::<EventPage>("A page, or all as lines.", 200, &page)
            .header("Ledger-Position", openapi::position())
            .build();
        answer.content.extend(lines.content);
        BTreeMap::from([("200".to_owned(), answer.into())])
    }
}

fn not_acceptable() -> ApiError {
    let allowed = Text::new("ACCEPTABLE").with("allowed", [JSON, LINES].join(", "));
    ApiError::new(Code::NotAcceptable).because(allowed)
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

async fn page(api: &QueryApi, mut walk: Walk, limit: Option<u64>) -> Result<Response, ApiError> {
    let limit = limit.map_or(DEFAULT_LIMIT, |limit| {
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
        feed::Error::Stream(error) => ApiError::unavailable(error),
        feed::Error::Gap { .. } | feed::Error::Foreign(_) | feed::Error::Closed => {
            ApiError::internal(error)
        }
    }
}

/// The stored envelopes, byte for byte, one on each line. A read error breaks the answer off, so that a part is never
/// mistaken for the whole. `slot` is held until the end.
fn lines(walk: Walk, limit: Option<u64>, slot: impl Send + 'static) -> Response {
    let last = walk.last;
    let begin = (walk, limit.unwrap_or(u64::MAX), slot);
    let lines = try_unfold(begin, |(mut walk, left, slot)| async move {
        while left > 0 && !walk.is_over() {
            let mut events = walk.next().await.inspect_err(|error| {
                tracing::error!(error = events::chain(error), "An export broke off");
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
            return Ok::<_, feed::Error>(Some((Bytes::from(lines), (walk, left, slot))));
        }
        Ok(None)
    });
    let position = [("ledger-position", last.to_string())];
    (position, [(CONTENT_TYPE, LINES)], Body::from_stream(lines)).into_response()
}

#[cfg(test)]
mod tests {
    use ::events::envelope::Context;
    use http_body_util::BodyExt as _;
    use http_kit::testing::{Answer, Ask, refuses};
    use serde_json::json;

    use super::*;
    use crate::testing::{Api, JANE, JOHN, auditor, called};

    fn events(query: &str) -> Ask {
        auditor(&format!("/api/v1/audit/events?{query}"))
    }

    fn export(query: &str) -> Ask {
        events(query).header("accept", LINES)
    }

    fn positions(answer: &Answer) -> Vec<u64> {
        let data = answer.data();
        let items = data["items"].as_array().unwrap().iter();
        items
            .map(|item| item["position"].as_u64().unwrap())
            .collect()
    }

    fn lines_in(body: &[u8]) -> usize {
        body.split_inclusive(|byte| *byte == b'\n').count()
    }

    /// John, Jane, a photo of John; then two events a second apart each, caused by two callers.
    async fn with_callers() -> Api {
        let api = Api::with_users().await;
        for (id, actor, request) in [(JOHN, "sign-up", "r-1"), (JANE, "Jane & \"co\"", "r-2")] {
            api.advance(1_000);
            let context = Context {
                actor: actor.to_owned(),
                request_id: Some(request.to_owned()),
                ..Context::default()
            };
            api.append_from(id, called("J", "K"), context).await;
        }
        api
    }

    #[tokio::test]
    async fn a_page_has_the_events_of_everybody_by_position() {
        let api = Api::with_users().await;
        let answer = api.send(events("after=1&limit=1")).await;
        let event: serde_json::Value = serde_json::from_str(&api.envelope(2).await).unwrap();
        assert_eq!(event["subject"], JANE);
        let changes = answer.data()["items"][0]["changes"].clone();
        assert_eq!(
            changes[0],
            json!({"field": "username", "before": null, "after": "jane"})
        );
        let data = json!({
            "items": [{"position": 2, "version": 1, "event": event, "changes": changes}],
            "nextAfter": 2,
            "hasMore": true,
        });
        answer.succeeds(200, &data);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }

    #[tokio::test]
    async fn pages_follow_each_other_to_the_end_and_go_on_from_there() {
        let api = Api::with_users().await;
        api.append_many(250).await;
        let (mut after, mut seen) = (0, Vec::new());
        loop {
            let answer = api.send(events(&format!("after={after}&limit=100"))).await;
            seen.extend(positions(&answer));
            after = answer.data()["nextAfter"].as_u64().unwrap();
            if answer.data()["hasMore"] == false {
                break;
            }
        }
        assert!(seen.iter().copied().eq(1..=253));
        let caught_up = events(&format!("after={after}"));
        assert_eq!(positions(&api.send(caught_up.clone()).await), [0; 0]);
        api.append_many(1).await;
        assert_eq!(positions(&api.send(caught_up).await), [254]);
    }

    #[tokio::test]
    async fn events_are_found_by_what_is_asked_for() {
        let api = with_callers().await;
        for (query, found) in [
            ("", &[1, 2, 3, 4, 5][..]),
            ("type=user-registered", &[1, 2]),
            ("type=photo-changed", &[3]),
            (&format!("user={JANE}"), &[2, 5]),
            (&format!("user={JOHN}&type=profile-updated"), &[4]),
            (&format!("user={JOHN}&limit=2"), &[1, 3]),
            (&format!("user={JOHN}&after=1&limit=1"), &[3]),
            ("user=507f1f77bcf86cd799439000", &[]),
            ("actor=sign-up", &[4]),
            ("actor=Jane+%26+%22co%22", &[5]),
            ("actor=sign-up&requestId=r-2", &[]),
            ("requestId=r-2", &[5]),
            ("from=2026-05-22T16:11:27.808Z", &[4, 5]),
            ("from=2026-05-22T16:11:27.809Z", &[5]),
            ("to=2026-05-22T16:11:26.808Z", &[1, 2, 3]),
            ("to=2026-05-22T16:11:26.807Z", &[]),
            (
                "from=2026-05-22T16:11:27.808Z&to=2026-05-22T16:11:27.808Z",
                &[4],
            ),
            ("from=2026-05-22T16:11:27Z&after=4", &[5]),
            ("from=2027-01-01T00:00:00Z", &[]),
            ("to=0001-01-01T00:00:00Z", &[]),
            ("to=2027-01-01T00:00:00Z&after=3", &[4, 5]),
        ] {
            let answer = api.send(events(query)).await;
            assert_eq!(positions(&answer), found, "{query}");
            let lines = api.send(export(query)).await;
            let mut wanted = String::new();
            for position in found {
                wanted.push_str(&api.envelope(*position).await);
                wanted.push('\n');
            }
            assert_eq!(lines.body, wanted, "{query}");
        }
    }

    #[tokio::test]
    async fn a_page_looks_at_a_bounded_number_of_events_and_says_where_to_go_on() {
        let api = Api::with_users().await;
        api.append_many(11_997).await;
        let mut after = 0;
        for (next, found, has_more) in [(5_120, 6, true), (10_240, 5, true), (12_000, 1, false)] {
            let query = format!("actor=actor-7&after={after}");
            let data = api.send(events(&query)).await.data();
            assert_eq!(data["items"].as_array().unwrap().len(), found);
            after = data["nextAfter"].as_u64().unwrap();
            assert_eq!((after, &data["hasMore"]), (next, &json!(has_more)));
        }
        let data = api.send(events("actor=nobody")).await.data();
        let nothing = json!({"items": [], "nextAfter": 5_120, "hasMore": true});
        assert_eq!(data, nothing);
    }

    #[tokio::test]
    async fn a_page_that_is_full_loses_nothing_of_what_was_looked_at() {
        let api = Api::with_users().await;
        api.append_many(1_000).await;
        for limit in [1, 7, 100] {
            let (mut after, mut seen) = (900, Vec::new());
            loop {
                let query = format!("type=profile-updated&limit={limit}&after={after}");
                let answer = api.send(events(&query)).await;
                seen.extend(positions(&answer));
                after = answer.data()["nextAfter"].as_u64().unwrap();
                if answer.data()["hasMore"] == false {
                    break;
                }
            }
            assert!(seen.into_iter().eq(901..=1_003), "{limit} at a time");
        }
    }

    #[tokio::test]
    async fn an_export_is_the_stored_envelopes_one_a_line() {
        let api = Api::with_users().await;
        api.append_many(1_000).await;
        let answer = api.send(export("")).await;
        assert_eq!(answer.header("content-type"), Some(LINES));
        assert_eq!(answer.header("ledger-position"), Some("1003"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        let lines: Vec<_> = text.split_terminator('\n').collect();
        assert_eq!(lines.len(), 1_003);
        for position in [1, 2, 256, 257, 1_003] {
            assert_eq!(lines[position - 1], api.envelope(position as u64).await);
        }
        for (query, count) in [("limit=300", 300), ("after=1000", 3), ("limit=5000", 1_003)] {
            let answer = api.send(export(query)).await;
            let lines = lines_in(&answer.body);
            assert_eq!(lines, count, "{query}");
        }
        assert!(api.send(export("after=1003")).await.body.is_empty());
    }

    #[tokio::test]
    async fn an_export_holds_a_batch_and_ends_at_the_head_of_its_beginning() {
        let api = Api::with_users().await;
        api.append_many(1_000).await;
        let mut body = export("").open(&api.router).await.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(lines_in(&first), BATCH);
        api.append_many(10).await;
        let rest = body.collect().await.unwrap().to_bytes();
        assert_eq!(lines_in(&first) + lines_in(&rest), 1_003);
    }

    #[tokio::test]
    async fn an_export_of_which_a_part_cannot_be_read_breaks_off() {
        let api = Api::with_users().await;
        // More than the store has in memory.
        api.append_many(4_000).await;
        let mut body = export("").open(&api.router).await.into_body();
        assert!(body.frame().await.unwrap().is_ok());
        api.lose_events().await;
        // An end would say that this was all.
        assert!(body.collect().await.is_err());
        assert_eq!(api.send(events("")).await.status, 503);
    }

    #[tokio::test]
    async fn more_exports_than_there_are_places_for_are_refused_until_one_ends() {
        let api = Api::with_users().await;
        let mut open = Vec::new();
        for _ in 0..8 {
            let response = export("").open(&api.router).await;
            assert_eq!(response.status(), 200);
            open.push(response);
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
        let recorded = api.trail.all().await.len();
        let answer = api.send(export("")).await;
        answer.fails(503, code, &english);
        assert_eq!(answer.header("retry-after"), Some("5"));
        let answer = api.send(export("").header("x-language", "tr")).await;
        answer.fails(503, code, &turkish);
        assert_eq!(api.trail.all().await.len(), recorded, "nothing was read");
        // Pages are answered meanwhile.
        assert_eq!(api.send(events("")).await.status, 200);
        // One is read to its end, and the reader of another goes away.
        open.pop().unwrap().into_body().collect().await.unwrap();
        drop(open.pop());
        for _ in 0..2 {
            open.push(export("").open(&api.router).await);
            assert_eq!(open.last().unwrap().status(), 200);
        }
        assert_eq!(api.send(export("")).await.status, 503);
    }

    #[tokio::test]
    async fn who_accepts_no_form_of_the_answer_is_told_which_there_are() {
        let api = Api::with_users().await;
        let ask = events("").header("accept", "text/csv");
        let code = "NOT_ACCEPTABLE";
        let answer = api.send(ask.clone()).await;
        let english = [
            "There is no answer in a form that you accept; see the Accept header",
            "Accept one of: application/json, application/x-ndjson.",
        ];
        answer.fails(406, code, &english);
        let turkish = [
            "Kabul ettiğiniz biçimde bir yanıt yok; Accept başlığına bakın",
            "Şunlardan birini kabul edin: application/json, application/x-ndjson.",
        ];
        let answer = api.send(ask.header("x-language", "tr")).await;
        answer.fails(406, code, &turkish);
        let ask = events("").header("accept", "application/problem+json");
        assert_eq!(api.send(ask).await.status, 200);
    }

    #[tokio::test]
    async fn every_bad_parameter_is_named_at_once() {
        let api = Api::with_users().await;
        let code = "VALIDATION_FAILED";
        let ask = events(
            "after=-1&limit=101&from=yesterday&to=2026-13-01&user=JOHN&type=UsernameChanged&actor=%E2%80%AE&requestId=&format=csv",
        );
        let types = UserEvent::TYPES.join(", ");
        let english = [
            "Validation failed",
            "after: must be a whole number from 0 to 9223372036854775807",
            "limit: must be a whole number from 1 to 100",
            "from: must be a time such as 2026-05-22T16:11:26.808Z; write a + as %2B",
            "to: must be a time such as 2026-05-22T16:11:26.808Z; write a + as %2B",
            "user: must be 24 lower-case hexadecimal digits",
            &format!("type: must be one of: {types}"),
            "requestId: must have at least 1 characters",
            "format: is not a known field",
        ];
        let turkish = [
            "Doğrulama başarısız",
            "after: 0 ile 9223372036854775807 arasında bir tam sayı olmalıdır",
            "limit: 1 ile 100 arasında bir tam sayı olmalıdır",
            "from: 2026-05-22T16:11:26.808Z gibi bir zaman olmalıdır; + işaretini %2B olarak yazın",
            "to: 2026-05-22T16:11:26.808Z gibi bir zaman olmalıdır; + işaretini %2B olarak yazın",
            "user: 24 küçük harfli onaltılık rakam olmalıdır",
            &format!("type: şunlardan biri olmalıdır: {types}"),
            "requestId: en az 1 karakter olmalıdır",
            "format: bilinen bir alan değil",
        ];
        refuses(&api.router, &ask, 400, code, &english, &turkish).await;
        for (query, english, turkish) in [
            (
                "after=4",
                "after: must be at most 3, which is the newest",
                "after: en fazla, en yenisi olan 3 olmalıdır",
            ),
            (
                "from=2026-05-22T00:00:00Z&to=2026-05-21T00:00:00Z",
                "to: must not be before 2026-05-22T00:00:00.000Z",
                "to: 2026-05-22T00:00:00.000Z tarihinden önce olmamalıdır",
            ),
        ] {
            let english = ["Validation failed", english];
            let turkish = ["Doğrulama başarısız", turkish];
            refuses(&api.router, &events(query), 400, code, &english, &turkish).await;
            assert_eq!(api.send(export(query)).await.status, 400);
        }
    }

    #[tokio::test]
    async fn hostile_texts_find_nothing_and_break_nothing() {
        let api = with_callers().await;
        for hostile in [
            "'; DROP TABLE events;--",
            "sign-up' OR '1'='1",
            "sign-up%",
            "${jndi:ldap://x}",
            "<script>alert(1)</script>",
            "../../etc/passwd",
        ] {
            let encoded = http_kit::testing::percent(hostile);
            for name in ["actor", "requestId"] {
                let answer = api.send(events(&format!("{name}={encoded}"))).await;
                assert_eq!(answer.data()["items"], json!([]), "{name}={hostile}");
            }
        }
        assert_eq!(positions(&api.send(events("")).await), [1, 2, 3, 4, 5]);
    }
}
