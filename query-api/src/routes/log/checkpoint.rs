//! `GET /api/v1/log/checkpoint`: the newest signed checkpoint. `GET /api/v1/log/key`: the key that verifies it. Get the
//! key from a source that you trust.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use http_kit::caller::Caller;
use http_kit::error::ApiError;
use http_kit::openapi::{self, Fails};
use utoipa::IntoResponses;
use utoipa::openapi::{self as described, RefOr};

use super::{EXAMPLE_CHECKPOINT, newest, not_yet_signed, plain};
use crate::Shared;
use crate::routes::LogRead;

const TEXT: &str = "text/plain; charset=utf-8";

/// A checkpoint in the OpenAPI document.
struct Note;

impl IntoResponses for Note {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        texts("The checkpoint.", EXAMPLE_CHECKPOINT)
    }
}

/// The key in the OpenAPI document.
struct Key;

impl IntoResponses for Key {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        let example = "profile-ledger+2a6a5e4f+Ab6Cz0Qm8m3c8y0m1mUoJq3yFzvWl1qzq0c3V8b0w2s7\n";
        texts(
            "The public key, in the format of a verifier of signed notes.",
            example,
        )
    }
}

fn texts(about: &str, example: &str) -> BTreeMap<String, RefOr<described::Response>> {
    let answer = openapi::text(about, "text/plain", example);
    BTreeMap::from([("200".to_owned(), answer.build().into())])
}

/// Read the newest checkpoint
///
/// A signed note (c2sp.org/tlog-checkpoint): origin, size and root of the tree, and the signature. One is signed about
/// once a second.
#[utoipa::path(
    get,
    path = "/api/v1/log/checkpoint",
    operation_id = "getLogCheckpointV1",
    tag = "Proofs",
    params(LogRead),
    responses(Note, Fails<(Caller, LogRead)>),
    security(("bearer" = []))
)]
pub(in crate::routes) async fn read(
    State(api): State<Shared>,
    _: Caller,
    read: LogRead,
) -> Result<Response, ApiError> {
    let ((), wanted) = read.parameters()?;
    let newest = newest(&api, wanted).await?;
    Ok(plain(TEXT, "no-cache", newest.note))
}

/// Read the key of the log
///
/// The key verifies checkpoints. Get it from a source that you trust.
#[utoipa::path(
    get,
    path = "/api/v1/log/key",
    operation_id = "getLogKeyV1",
    tag = "Proofs",
    params(LogRead),
    responses(Key, Fails<(Caller, LogRead)>),
    security(("bearer" = []))
)]
pub(in crate::routes) async fn key(
    State(api): State<Shared>,
    _: Caller,
    read: LogRead,
) -> Result<Response, ApiError> {
    read.parameters::<()>()?;
    let key = api.log.key().await.map_err(ApiError::unavailable)?;
    let key = key.ok_or_else(|| not_yet_signed(1))?;
    Ok(plain(TEXT, "no-cache", format!("{key}\n")))
}
