//! Proofs that the history is unchanged: signed checkpoints, tiles of hashes, and proofs made from them, in the formats
//! of `c2sp.org/tlog-tiles`. Hashes do not reveal personal data, so every caller may read them. Entries are for
//! auditors.
//!
//! Nothing of the tree is served beyond its newest checkpoint.

use std::time::Duration;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use events::Position;
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::text::Text;
use ledger::merkle::{SignedCheckpoint, TreeReader};

use super::WAIT;
use crate::QueryApi;

/// A checkpoint, for examples.
const EXAMPLE_CHECKPOINT: &str = "profile-ledger\n42\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\u{2014} profile-ledger KmpeT3Vx0Q0hYp2cJXo3b9m0dYQkqk5mXc0o7s4m3o8t1u2v3w4x5y6z7A8B9C0D1E2F3G4H5I6J7K8L9M0N1O2P3Q==\n";

/// The pause between two reads of the newest checkpoint. One checkpoint is signed each second.
const LOOK: Duration = Duration::from_millis(100);

pub(super) mod checkpoint;
pub(super) mod proof;
pub(super) mod tile;

/// The newest checkpoint as soon as it reaches a position; 503 if that takes too long.
async fn newest(api: &QueryApi, wanted: Position) -> Result<SignedCheckpoint, ApiError> {
    let signed = async {
        loop {
            let newest = api.log.checkpoint().await;
            match newest.map_err(ApiError::unavailable)? {
                Some(newest) if newest.size >= wanted => return Ok(newest),
                Some(_) => tokio::time::sleep(LOOK).await,
                None => return Err(not_yet_signed(wanted.max(1))),
            }
        }
    };
    let signed = tokio::time::timeout(WAIT, signed).await;
    signed.unwrap_or_else(|_| Err(not_yet_signed(wanted)))
}

/// 503: the tree does not reach that far yet.
fn not_yet_signed(size: u64) -> ApiError {
    ApiError::new(Code::NotYetReadable)
        .because(Text::new("NOT_YET_SIGNED").with("position", size))
        .retry_after(1)
}

/// The tree over the first leaves.
fn tree(api: &QueryApi, size: u64) -> TreeReader<'_> {
    TreeReader::new(&*api.history, &*api.log, size)
}

/// An answer without the envelope: text or bytes, as the public formats require.
fn plain(content_type: &'static str, cache: &'static str, body: impl Into<Vec<u8>>) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CACHE_CONTROL, HeaderValue::from_static(cache)),
    ];
    (StatusCode::OK, headers, body.into()).into_response()
}
