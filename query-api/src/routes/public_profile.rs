//! `GET /api/v1/users/profile/{userId}` and `GET /api/v1/users/profile/username/{username}`: a user as
//! strangers see it.

use axum::extract::{Path, State};
use axum::response::Response;
use events::profile::PublicProfile;
use events::{Document, Time};
use http_kit::caller::OptionalCaller;
use http_kit::error::ApiError;

use super::{Reader, not_found};
use crate::QueryApi;

pub(super) async fn by_id(
    State(api): State<QueryApi>,
    _caller: OptionalCaller,
    Path(user_id): Path<String>,
    mut reader: Reader,
) -> Result<Response, ApiError> {
    std::mem::take(&mut reader.parameters).finish()?;
    // What is no id is the id of nobody.
    let user_id = user_id.parse().map_err(|_| not_found())?;
    let document = api
        .documents
        .document(&user_id)
        .await
        .map_err(ApiError::unavailable)?;
    answer(&api, &reader, document)
}

pub(super) async fn by_username(
    State(api): State<QueryApi>,
    _caller: OptionalCaller,
    Path(username): Path<String>,
    mut reader: Reader,
) -> Result<Response, ApiError> {
    std::mem::take(&mut reader.parameters).finish()?;
    // No rule ever took such a name, and no database keeps a NUL in a text.
    if username.chars().any(char::is_control) {
        return Err(not_found());
    }
    // History may hold names that today's rules refuse, so only the spelling is made canonical.
    let username = username.to_ascii_lowercase();
    let document = api
        .documents
        .document_by_username(&username)
        .await
        .map_err(ApiError::unavailable)?;
    answer(&api, &reader, document)
}

fn answer(
    api: &QueryApi,
    reader: &Reader,
    document: Option<Document>,
) -> Result<Response, ApiError> {
    let document = document.ok_or_else(not_found)?;
    let today = Time::from(api.clock.now()).date();
    Ok(reader.answer(
        api,
        &document,
        &PublicProfile {
            document: &document,
            public_url: &api.public_url,
            today,
        },
    ))
}
