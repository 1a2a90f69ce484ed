//! `GET /api/v1/log/checkpoint`: the newest signed checkpoint. `GET /api/v1/log/key`: the key to verify it
//! with, which is worth as much as the way it came: have it from somebody you trust.

use axum::extract::State;
use axum::response::Response;
use http_kit::caller::Caller;
use http_kit::error::ApiError;

use super::{newest, not_yet_signed, plain};
use crate::QueryApi;
use crate::routes::Parameters;

const TEXT: &str = "text/plain; charset=utf-8";

pub(in crate::routes) async fn read(
    State(api): State<QueryApi>,
    _: Caller,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    parameters.fields.finish()?;
    let newest = newest(&api, parameters.wanted).await?;
    Ok(plain(TEXT, "no-cache", newest.note))
}

pub(in crate::routes) async fn key(
    State(api): State<QueryApi>,
    _: Caller,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    parameters.fields.finish()?;
    let key = api.log.key().await.map_err(ApiError::unavailable)?;
    let key = key.ok_or_else(|| not_yet_signed(1))?;
    Ok(plain(TEXT, "no-cache", format!("{key}\n")))
}
