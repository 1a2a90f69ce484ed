//! `PUT /api/v1/users/profile`: replaces the whole profile of the caller.

use axum::extract::State;
use axum::http::StatusCode;
use http_kit::answer::Answer;
use http_kit::error::ApiError;
use http_kit::fields::{Fields, JsonBody};

use super::{Sender, answer, today, undecided};
use crate::CommandApi;
use crate::user::Action;
use crate::values;

pub(super) async fn replace(
    api: State<CommandApi>,
    sender: Sender,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    let user_id = sender.user()?;
    let mut fields = Fields::parse(&body)?;
    let profile = values::profile(&mut fields, today(&api));
    fields.finish()?;
    let profile = profile.expect("`finish` has reported what is bad");
    let action = Action::ReplaceProfile(Box::new(profile));
    let decided = sender
        .submit(&api, user_id, action, "replace profile", &body)
        .await
        .map_err(undecided)?;
    answer(&api, StatusCode::OK, decided)
}
