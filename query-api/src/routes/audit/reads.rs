//! `GET /api/v1/audit/reads`: the record of reads of histories. Reading this list is recorded, too.

use axum::extract::State;
use events::{Time, UserId};
use http_kit::answer::Answer;
use http_kit::error::ApiError;
use http_kit::openapi::{Fails, values};
use http_kit::query::optional;
use http_kit::query_parameters;
use ledger::trail::{Question, RecordedRead, Start};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{AuditedRead, NAME, Order, Page, PageOf, USER_ID, within};
use crate::Shared;
use crate::routes::{Example, Shows};

/// A recorded read of a history.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RecordedRead)]
pub(crate) struct Item {
    /// The number of the read among all reads.
    number: u64,
    #[schema(value_type = values::Time)]
    at: Time,
    /// The reader: the subject of the token.
    actor: String,
    /// The route, as a pattern of its path.
    route: String,
    /// The user whose history was read. `null` for the history of all users.
    #[schema(value_type = Option<values::UserId>)]
    user_id: Option<UserId>,
    /// The query string.
    query: String,
    request_id: String,
}

impl Example for Item {
    fn example() -> Value {
        json!(Self {
            number: 42,
            at: http_kit::profile::example().updated_at,
            actor: "auditor-1".to_owned(),
            route: "/api/v1/audit/users/{userId}".to_owned(),
            user_id: Some(http_kit::profile::example().user_id),
            query: "atVersion=2".to_owned(),
            request_id: "0196f8a2-3c5e-7d10-8f3a-6b1f0c9d2e47".to_owned(),
        })
    }
}

query_parameters! {
    /// The reads to list.
    struct Which {
        /// Only reads by this caller: the subject of the token.
        actor: Option<String> = optional("actor", NAME),
        /// Only reads of the history of this user.
        user: Option<UserId> = optional("user", USER_ID),
    }
}

impl From<RecordedRead> for Item {
    fn from(RecordedRead { number, read }: RecordedRead) -> Self {
        Self {
            number,
            at: read.at,
            actor: read.actor,
            route: read.route,
            user_id: read.user,
            query: read.query,
            request_id: read.request_id,
        }
    }
}

/// List the reads of histories
///
/// Reading this list is recorded, too.
#[utoipa::path(
    get,
    path = "/api/v1/audit/reads",
    operation_id = "listReadsV1",
    tag = "Audit",
    params(PageOf, Which, AuditedRead),
    responses(Shows<Page<Item>>, Fails<(AuditedRead, PageOf)>),
    security(("bearer" = []))
)]
pub(in crate::routes) async fn list(
    State(api): State<Shared>,
    mut read: AuditedRead,
) -> Result<Answer, ApiError> {
    read.require_auditor()?;
    let (page, which): (PageOf, Which) = read.parameters()?;
    let PageOf {
        order,
        after,
        limit,
    } = page;
    let Which { actor, user } = which;
    read.record(&api, user).await?;

    let count = api.trail.count().await.map_err(ApiError::unavailable)?;
    within("after", after.unwrap_or(0), count)?;
    let question = Question {
        actor,
        user,
        start: match order {
            Order::Oldest => Start::After(after.unwrap_or(0)),
            Order::Newest => Start::Before(after.unwrap_or(u64::MAX)),
        },
        // One more than asked for tells whether there is another page.
        limit: limit + 1,
    };
    let listed = api.trail.list(&question).await;
    let mut listed = listed.map_err(ApiError::unavailable)?;
    let has_more = listed.len() > limit;
    listed.truncate(limit);
    let last = listed.last().map(|recorded| recorded.number);
    let page = Page {
        next_after: last.or(after).unwrap_or(0),
        items: listed.into_iter().map(Item::from).collect(),
        has_more,
    };
    Ok(Answer::ok(api.clock.now(), &page))
}

#[cfg(test)]
mod tests {
    use http_kit::caller::Role;
    use http_kit::testing::{Answer, Ask, NOW, refuses, token};
    use serde_json::json;

    use crate::testing::{Api, JANE, JOHN, auditor};

    fn reads(query: &str) -> Ask {
        auditor(&format!("/api/v1/audit/reads?{query}"))
    }

    fn numbers(answer: &Answer) -> Vec<u64> {
        let data = answer.data();
        let items = data["items"].as_array().unwrap().iter();
        items.map(|item| item["number"].as_u64().unwrap()).collect()
    }

    /// Two auditors have looked at two users and at everybody.
    async fn looked_at() -> Api {
        let api = Api::with_users().await;
        let admin = token("admin-2", &[Role::Admin]);
        for (id, query) in [
            (JOHN, "?atVersion=1"),
            (JANE, ""),
            (JOHN, "/events?limit=%35"),
        ] {
            let ask = auditor(&format!("/api/v1/audit/users/{id}{query}"));
            let answer = api.send(ask.header("x-request-id", "request-1")).await;
            assert_eq!(answer.status, 200);
        }
        let ask = Ask::new("GET", "/api/v1/audit/events?type=photo-changed").bearer(&admin);
        assert_eq!(api.send(ask).await.status, 200);
        api
    }

    #[tokio::test]
    async fn the_list_says_who_looked_at_whom_when_and_how_and_holds_itself() {
        let api = looked_at().await;
        let ask = reads("limit=2").header("x-request-id", "request-2");
        let item = |number: u64, route: &str, user: Option<&str>, query: &str, request: &str| {
            json!({
                "number": number, "at": NOW, "actor": "auditor-1", "route": route, "userId": user, "query": query,
                "requestId": request,
            })
        };
        let data = json!({
            "items": [
                item(1, "/api/v1/audit/users/{userId}", Some(JOHN), "atVersion=1", "request-1"),
                item(2, "/api/v1/audit/users/{userId}", Some(JANE), "", "request-1"),
            ],
            "nextAfter": 2,
            "hasMore": true,
        });
        let answer = api.send(ask).await;
        answer.succeeds(200, &data);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let ask = reads("after=4").header("x-request-id", "request-3");
        let data = json!({
            "items": [
                item(5, "/api/v1/audit/reads", None, "limit=2", "request-2"),
                item(6, "/api/v1/audit/reads", None, "after=4", "request-3"),
            ],
            "nextAfter": 6,
            "hasMore": false,
        });
        api.send(ask).await.succeeds(200, &data);
    }

    /// A page, or everything; from now on, or all of it again; and which envelopes.
    #[tokio::test]
    async fn what_was_looked_at_is_on_record_where_the_query_does_not_say_it() {
        let api = Api::with_users().await;
        api.sign().await;
        let lines = ("accept", "application/x-ndjson");
        for (path, (name, value)) in [
            ("/api/v1/audit/events?after=1", lines),
            ("/api/v1/audit/events", ("accept", "application/json")),
            ("/api/v1/events/stream", ("last-event-id", "2")),
            ("/api/v1/log/tile/entries/000.p/2", ("accept", "*/*")),
        ] {
            let response = auditor(path).header(name, value).open(&api.router).await;
            assert_eq!(response.status(), 200, "{path}");
        }
        let data = api.send(reads("")).await.data();
        let items = data["items"].as_array().unwrap().iter();
        let queries: Vec<_> = items.map(|item| item["query"].clone()).collect();
        let told = [
            "after=1&accept=application/x-ndjson",
            "",
            "lastEventId=2",
            "tile=000.p/2",
            "",
        ];
        assert_eq!(queries, told);
    }

    #[tokio::test]
    async fn reads_are_found_by_caller_and_by_user_from_either_end() {
        let api = looked_at().await;
        for (query, found) in [
            ("limit=4", &[1, 2, 3, 4][..]),
            ("actor=admin-2", &[4]),
            ("actor=auditor-1&limit=3", &[1, 2, 3]),
            ("actor=nobody", &[]),
            ("actor=%27%20OR%20%271%27=%271", &[]),
            ("actor=admin-2&order=newest", &[4]),
            ("order=newest&limit=1&after=3", &[2]),
        ] {
            assert_eq!(numbers(&api.send(reads(query)).await), found, "{query}");
        }
        // To look at the reads of a user is a look at that user.
        let answer = api.send(reads(&format!("user={JOHN}"))).await;
        assert_eq!(numbers(&answer), [1, 3, 12]);
    }

    #[tokio::test]
    async fn every_bad_parameter_is_named_at_once() {
        let api = looked_at().await;
        let code = "VALIDATION_FAILED";
        let ask = reads("after=1e3&limit=0&actor=%00&user=john&order=");
        let english = [
            "Validation failed",
            "order: must be one of: oldest, newest",
            "after: must be a whole number from 0 to 9223372036854775807",
            "limit: must be a whole number from 1 to 100",
            "actor: has control, invisible or direction-changing characters",
            "user: must be 24 lower-case hexadecimal digits",
        ];
        let turkish = [
            "Doğrulama başarısız",
            "order: şunlardan biri olmalıdır: oldest, newest",
            "after: 0 ile 9223372036854775807 arasında bir tam sayı olmalıdır",
            "limit: 1 ile 100 arasında bir tam sayı olmalıdır",
            "actor: denetim, görünmez ya da yön değiştiren karakterler içeriyor",
            "user: 24 küçük harfli onaltılık rakam olmalıdır",
        ];
        refuses(&api.router, &ask, 400, code, &english, &turkish).await;
        for query in ["actor=", &format!("actor={}", "x".repeat(129)), "after=9"] {
            assert_eq!(api.send(reads(query)).await.status, 400, "{query}");
        }
    }
}
