//! `POST /api/v1/users/check-username`: whether the caller could take a username.

use axum::extract::State;
use events::username::InvalidUsername;
use events::{Time, Username};
use http_kit::answer::Answer;
use http_kit::caller::{Caller, Role};
use http_kit::error::ApiError;
use http_kit::fields::{self, Fields, JsonBody};
use http_kit::text::Text;
use serde::Serialize;

use super::Reader;
use crate::QueryApi;

#[derive(Serialize)]
struct Availability {
    available: bool,
}

pub(super) async fn check(
    State(api): State<QueryApi>,
    caller: Caller,
    reader: Reader,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    // Who registers users asks before it does.
    caller.require(&[Role::User, Role::Service, Role::Admin])?;
    reader.parameters.finish()?;
    let mut fields = Fields::parse(&body)?;
    let username = fields.required("username", |value| {
        match Username::parse(fields::string(value)?) {
            Ok(username) => Ok(Some(username)),
            Err(InvalidUsername::Reserved) => Ok(None),
            Err(invalid) => Err(problem(invalid)),
        }
    });
    fields.finish()?;
    let now = Time::from(api.clock.now());
    let available = match username.expect("`finish` has reported what is bad") {
        None => false,
        Some(username) => {
            // The ledger's own claims, not the read model: a name is never free here and taken there.
            let claims = api
                .history
                .claims(&[username.to_string()])
                .await
                .map_err(ApiError::unavailable)?;
            let user_id = caller.subject.parse().ok();
            claims.iter().all(|claim| match user_id {
                Some(user_id) => claim.is_free_for(&user_id, now),
                None => claim.held_until.is_some_and(|until| until <= now),
            })
        }
    };
    Ok(Answer::ok(now.into(), &Availability { available }))
}

fn problem(invalid: InvalidUsername) -> Text {
    match invalid {
        InvalidUsername::TooShort => Text::new("TOO_SHORT").with("min", Username::MIN),
        InvalidUsername::TooLong => Text::new("TOO_LONG").with("max", Username::MAX),
        InvalidUsername::Characters { suggestion } if Username::parse(&suggestion).is_ok() => {
            Text::new("USERNAME_CHARACTERS").with("suggestion", suggestion)
        }
        InvalidUsername::Characters { .. } => Text::new("USERNAME_LETTERS"),
        InvalidUsername::Shape => Text::new("USERNAME_SHAPE"),
        InvalidUsername::Reserved => Text::new("USERNAME_RESERVED"),
    }
}
