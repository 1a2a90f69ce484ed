//! `POST /api/v1/users`: how the sign-up service creates a user.

use axum::extract::State;
use axum::http::StatusCode;
use events::{Time, UserId};
use http_kit::answer::Answer;
use http_kit::caller::Role;
use http_kit::error::ApiError;
use http_kit::fields::{Fields, JsonBody};

use super::{Sender, answer, today, undecided};
use crate::CommandApi;
use crate::user::Action;
use crate::values;

pub(super) async fn register(
    api: State<CommandApi>,
    sender: Sender,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    sender.caller.require(&[Role::Service, Role::Admin])?;
    let mut fields = Fields::parse(&body)?;
    let registration = values::registration(&mut fields, today(&api));
    fields.finish()?;
    let (user_id, registration) = registration.expect("`finish` has reported what is bad");
    let user_id =
        user_id.unwrap_or_else(|| UserId::new(Time::from(api.clock.now()), api.randomness.bytes()));
    let action = Action::Register(Box::new(registration));
    let decided = sender
        .submit(&api, user_id, action, "register", &body)
        .await
        .map_err(undecided)?;
    answer(&api, StatusCode::CREATED, decided)
}
