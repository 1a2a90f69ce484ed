//! A successful answer, in the envelope.

use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;

use crate::envelope::{Envelope, timestamp};
use crate::error::ApiError;

/// A successful answer.
#[derive(Debug)]
pub struct Answer(Response);

impl Answer {
    /// 200 with data, as of a time.
    pub fn ok(now: Timestamp, data: &impl Serialize) -> Self {
        Self::with_status(StatusCode::OK, now, data)
    }

    /// Another status of success with data, as of a time.
    pub fn with_status(status: StatusCode, now: Timestamp, data: &impl Serialize) -> Self {
        let envelope = Envelope {
            is_success: true,
            status_code: status.as_u16(),
            data,
            errors: Vec::new(),
            timestamp: timestamp(now),
        };
        match serde_json::to_vec(&envelope) {
            Ok(body) => Self((status, [(CONTENT_TYPE, "application/json")], body).into_response()),
            Err(error) => Self(ApiError::internal(error).into_response()),
        }
    }

    /// `ETag: "<version>"`, the version of the user that the answer shows.
    #[must_use]
    pub fn version(self, version: u64) -> Self {
        self.header(ETAG, &format!("\"{version}\""))
    }

    /// `Ledger-Position: <position>`, that of the last event in the answer.
    #[must_use]
    pub fn position(self, position: u64) -> Self {
        self.header(
            HeaderName::from_static("ledger-position"),
            &position.to_string(),
        )
    }

    /// Another header. A value that a header cannot carry is left out.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers_mut().insert(name, value);
        }
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        self.0
    }
}
