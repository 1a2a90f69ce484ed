//! `GET /media/users/{userId}/photos/{hash}/{photoId}/{file}`: the bytes of a photo.

use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use events::{PhotoId, UserId, photos};
use http_kit::client::if_none_match;
use http_kit::error::ApiError;

use super::not_found;
use crate::QueryApi;

/// The files that a photo can have. The type of each is fixed by its name, whatever the store says.
const FILES: [(&str, &str); 6] = [
    ("40.webp", "image/webp"),
    ("76.webp", "image/webp"),
    ("96.webp", "image/webp"),
    ("192.webp", "image/webp"),
    ("512.webp", "image/webp"),
    ("512.jpg", "image/jpeg"),
];

pub(super) async fn read(
    State(api): State<QueryApi>,
    Path((user, hash, photo, file)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    // Every part is parsed, so that no path leads anywhere but to a photo.
    let user: UserId = user.parse().map_err(|_| not_found())?;
    let photo: PhotoId = photo.parse().map_err(|_| not_found())?;
    let is_hash = hash.len() == 64
        && hash
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let (file, media_type) = FILES
        .iter()
        .find(|(name, _)| *name == file && is_hash)
        .ok_or_else(not_found)?;
    let key = photos::key(&user, &hash, &photo, file);
    let bytes = api
        .photo_store
        .read(&key)
        .await
        .map_err(ApiError::unavailable)?
        .ok_or_else(not_found)?;
    // A key's bytes never change, so the key is a strong validator.
    let etag = format!("\"{hash}-{photo}-{file}\"");
    let headers_out: [(HeaderName, &str); 5] = [
        (CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (ETAG, &etag),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; sandbox; frame-ancestors 'none'",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "cross-origin",
        ),
    ];
    if if_none_match(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers_out).into_response());
    }
    Ok((
        headers_out,
        [(CONTENT_TYPE, *media_type), (CONTENT_DISPOSITION, "inline")],
        bytes,
    )
        .into_response())
}
