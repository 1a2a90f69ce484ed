//! `GET /api/v1/audit/users/{userId}/diff`: what is different between two versions of a user, field by
//! field.

use axum::extract::{Path, State};
use events::changes::{FieldChange, between, object};
use events::document::Document;
use events::profile::OwnProfile;
use events::replay::{Until, replay};
use events::{UserId, Version};
use http_kit::answer::Answer;
use http_kit::error::ApiError;
use serde::Serialize;

use super::user::Moment;
use super::{Asked, newest, not_replayed, place, within};
use crate::QueryApi;
use crate::routes::not_found;

#[derive(Serialize)]
struct Difference {
    from: Moment,
    to: Moment,
    changes: Vec<FieldChange>,
}

pub(in crate::routes) async fn compare(
    State(api): State<QueryApi>,
    mut asked: Asked,
    Path(user_id): Path<String>,
) -> Result<Answer, ApiError> {
    let user = asked.user(&user_id)?;
    let parameters = &mut asked.parameters;
    let from = parameters.required("from", |value| place(value, 1));
    let to = parameters.required("to", |value| place(value, 1));
    asked.record(&api, Some(user)).await?;
    let (Some(from), Some(to)) = (from, to) else {
        unreachable!("what is missing was refused")
    };

    let newest = newest(&api, &user).await?.version;
    within("from", from, newest)?;
    within("to", to, newest)?;
    let early = at(&api, &user, None, from.min(to)).await?;
    let late = at(&api, &user, Some(early.clone()), from.max(to)).await?;
    let (before, after) = if from <= to {
        (&early, &late)
    } else {
        (&late, &early)
    };
    let profile = |document| {
        object(&OwnProfile {
            document,
            public_url: &api.public_url,
        })
    };
    let difference = Difference {
        from: Moment::of(before),
        to: Moment::of(after),
        changes: between(&profile(before), &profile(after)).collect(),
    };
    Ok(Answer::ok(api.clock.now(), &difference))
}

async fn at(
    api: &QueryApi,
    user: &UserId,
    earlier: Option<Document>,
    version: Version,
) -> Result<Document, ApiError> {
    let document = replay(&*api.history, user, earlier, Until::Version(version)).await;
    document.map_err(not_replayed)?.ok_or_else(not_found)
}
