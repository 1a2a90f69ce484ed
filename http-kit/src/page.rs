//! Files of pages that are part of the binary.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, REFERRER_POLICY,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};
use utoipa::openapi::{self as described, RefOr};

use crate::client::if_none_match;
use crate::openapi;

/// A file, or 304 when the browser has it already. Browsers ask each time, so that the files of a page are
/// all of one version. `policy` is the `Content-Security-Policy`: what the page may do.
pub fn file(asked: &HeaderMap, policy: &str, media_type: &str, bytes: Bytes) -> Response {
    let etag = format!("\"{}\"", hex::encode(Sha256::digest(&bytes)));
    let named: [(HeaderName, &str); 6] = [
        (CACHE_CONTROL, "no-cache"),
        (ETAG, &etag),
        (CONTENT_SECURITY_POLICY, policy),
        (REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    if if_none_match(asked, &etag) {
        return (StatusCode::NOT_MODIFIED, named).into_response();
    }
    (named, [(CONTENT_TYPE, media_type)], bytes).into_response()
}

/// The answers of [`file()`], described.
pub fn answers(about: &str, media_types: &[&str]) -> BTreeMap<String, RefOr<described::Response>> {
    let answers = [
        ("200", openapi::bytes(about, media_types)),
        ("304", openapi::described("The client has it already.")),
    ];
    BTreeMap::from(answers.map(|(status, answer)| {
        let answer = answer.header("ETag", openapi::answer_header("Names the bytes."));
        (status.to_owned(), answer.build().into())
    }))
}
