//! `GET /api/v1/audit/reads`: who looked at whose history. To look at this list is recorded, too.

use axum::extract::State;
use events::trail::{Question, RecordedRead, Start};
use events::{Time, UserId};
use http_kit::answer::Answer;
use http_kit::error::ApiError;
use serde::Serialize;

use super::{Asked, Order, Page, order, page_limit, place, text, user_id, within};
use crate::QueryApi;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    number: u64,
    at: Time,
    actor: String,
    route: String,
    user_id: Option<UserId>,
    query: String,
    request_id: String,
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

pub(in crate::routes) async fn list(
    State(api): State<QueryApi>,
    mut asked: Asked,
) -> Result<Answer, ApiError> {
    asked.require_auditor()?;
    let parameters = &mut asked.parameters;
    let order = parameters.optional("order", order).unwrap_or(Order::Oldest);
    let after = parameters.optional("after", |value| place(value, 0));
    let limit = page_limit(parameters);
    let actor = parameters.optional("actor", text);
    let user = parameters.optional("user", user_id);
    asked.record(&api, user).await?;

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
