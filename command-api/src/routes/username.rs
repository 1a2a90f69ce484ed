//! `PATCH /api/v1/users/username`: gives the caller another username, once in 30 days.

use axum::extract::State;
use axum::http::StatusCode;
use http_kit::answer::Answer;
use http_kit::error::ApiError;
use http_kit::fields::{self, Fields, JsonBody};

use super::{Sender, answer, undecided};
use crate::CommandApi;
use crate::user::Action;
use crate::values;

pub(super) async fn change(
    api: State<CommandApi>,
    sender: Sender,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    let user_id = sender.user()?;
    let mut fields = Fields::parse(&body)?;
    let username = fields.required("newUsername", |value| {
        values::username(fields::string(value)?)
    });
    fields.finish()?;
    let action = Action::ChangeUsername(username.expect("`finish` has reported what is bad"));
    let decided = sender
        .submit(&api, user_id, action, "change username", &body)
        .await
        .map_err(undecided)?;
    answer(&api, StatusCode::OK, decided)
}
