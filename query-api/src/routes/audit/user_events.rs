//! `GET /api/v1/audit/users/{userId}/events`: what happened to a user, by version, from either end.

use axum::extract::{Path, State};
use events::Version;
use http_kit::answer::Answer;
use http_kit::error::ApiError;

use super::{Asked, Item, Order, Page, newest, order, page_limit, place, within};
use crate::QueryApi;

pub(in crate::routes) async fn list(
    State(api): State<QueryApi>,
    mut asked: Asked,
    Path(user_id): Path<String>,
) -> Result<Answer, ApiError> {
    let user = asked.user(&user_id)?;
    let parameters = &mut asked.parameters;
    let order = parameters.optional("order", order).unwrap_or(Order::Oldest);
    let after = parameters.optional("after", |value| place(value, 0));
    let limit = page_limit(parameters);
    asked.record(&api, Some(user)).await?;

    let newest = newest(&api, &user).await?.version;
    within("after", after.unwrap_or(0), newest)?;
    // One more than asked for tells whether there is another page.
    let read = match order {
        Order::Oldest => {
            let after = after.unwrap_or(0);
            api.history.read_user(&user, after, limit + 1).await
        }
        Order::Newest => {
            let before = after.unwrap_or(Version::MAX);
            api.history.read_user_back(&user, before, limit + 1).await
        }
    };
    let mut events = read.map_err(ApiError::unavailable)?;
    let has_more = events.len() > limit;
    events.truncate(limit);
    let last = events.last().map(|event| event.version);
    let page = Page {
        items: Item::all(&events)?,
        next_after: last.or(after).unwrap_or(0),
        has_more,
    };
    Ok(Answer::ok(api.clock.now(), &page).version(newest))
}
