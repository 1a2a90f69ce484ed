//! Files in the binary: pages, and documents that describe the service.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, REFERRER_POLICY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};
use utoipa::openapi::{self as described, RefOr, ResponseBuilder};

use crate::client::if_none_match;
use crate::openapi;

/// A file and its `ETag`.
pub struct File {
    media_type: &'static str,
    bytes: Bytes,
    etag: String,
}

impl File {
    /// A file of a media type.
    pub fn new(media_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            media_type,
            etag: format!("\"{}\"", hex::encode(Sha256::digest(&bytes))),
            bytes,
        }
    }

    /// The file, or 304 if the client already has it. Clients ask each time, because another version of the program has
    /// other files.
    pub fn answer(&self, asked: &HeaderMap) -> Response {
        let named = [(CACHE_CONTROL, "no-cache"), (ETAG, &self.etag)];
        if if_none_match(asked, &self.etag) {
            return (StatusCode::NOT_MODIFIED, named).into_response();
        }
        let form = [(CONTENT_TYPE, self.media_type)];
        (named, form, self.bytes.clone()).into_response()
    }

    /// The same for a page or a part of one. `policy` is its `Content-Security-Policy`.
    pub fn answer_in_page(&self, asked: &HeaderMap, policy: &HeaderValue) -> Response {
        let same_origin = HeaderValue::from_static("same-origin");
        let kept_apart = [
            (CONTENT_SECURITY_POLICY, policy.clone()),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (
                HeaderName::from_static("cross-origin-opener-policy"),
                same_origin.clone(),
            ),
            (
                HeaderName::from_static("cross-origin-resource-policy"),
                same_origin,
            ),
        ];
        (kept_apart, self.answer(asked)).into_response()
    }
}

/// The answers of a [`File`] in the OpenAPI document: the file, or 304.
pub fn answers(file: ResponseBuilder) -> BTreeMap<String, RefOr<described::Response>> {
    let answers = [
        ("200", file),
        (
            "304",
            openapi::described("The client already has the file."),
        ),
    ];
    BTreeMap::from(answers.map(|(status, answer)| {
        let answer = answer.header("ETag", openapi::answer_header("Identifies the bytes."));
        (status.to_owned(), answer.build().into())
    }))
}
