//! `GET /api/v1/users/profile`: the profile of the caller.

use axum::extract::State;
use axum::response::Response;
use events::UserId;
use events::profile::OwnProfile;
use http_kit::caller::{Caller, Role};
use http_kit::error::ApiError;

use super::{Reader, not_found};
use crate::QueryApi;

pub(super) async fn read(
    State(api): State<QueryApi>,
    caller: Caller,
    mut reader: Reader,
) -> Result<Response, ApiError> {
    caller.require(&[Role::User])?;
    std::mem::take(&mut reader.parameters).finish()?;
    let user_id: UserId = caller.subject.parse().map_err(|_| not_found())?;
    let document = api
        .documents
        .document(&user_id)
        .await
        .map_err(ApiError::unavailable)?
        .ok_or_else(not_found)?;
    Ok(reader.answer(
        &api,
        &document,
        &OwnProfile {
            document: &document,
            public_url: &api.public_url,
        },
    ))
}
