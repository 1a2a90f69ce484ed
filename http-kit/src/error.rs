//! The answer to a request that failed.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;

use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::code::Code;
use crate::envelope::{Envelope, timestamp};
use crate::text::{Language, Text};

/// A failed request. The outermost layer renders it, because that layer knows the language of the client and the media
/// types that it accepts; see [`crate::serve::harden`].
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .code.as_str())]
pub struct ApiError {
    code: Code,
    reason: Option<Text>,
    fields: Vec<(Cow<'static, str>, Text)>,
    retry_after: Option<u32>,
    headers: Vec<(HeaderName, HeaderValue)>,
    #[source]
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl ApiError {
    /// A failure without details.
    pub fn new(code: Code) -> Self {
        Self {
            code,
            reason: None,
            fields: Vec::new(),
            retry_after: None,
            headers: Vec::new(),
            source: None,
        }
    }

    /// Adds the precise reason.
    #[must_use]
    pub fn because(mut self, reason: Text) -> Self {
        self.reason = Some(reason);
        self
    }

    /// Adds a bad field and its problem.
    #[must_use]
    pub fn field(mut self, field: impl Into<Cow<'static, str>>, problem: Text) -> Self {
        self.fields.push((field.into(), problem));
        self
    }

    /// Sets `Retry-After`, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// 500: a defect. The source is logged once, with the answer; the client does not see it.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            source: Some(Arc::from(source.into())),
            ..Self::new(Code::Internal)
        }
    }

    /// 503: a dependency is not available. The source is logged once, with the answer; the client does not see it.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            source: Some(Arc::from(source.into())),
            ..Self::new(Code::Unavailable).retry_after(1)
        }
    }

    /// Whether this is the answer of an earlier request with the same idempotency key.
    pub(crate) fn is_replayed(&self) -> bool {
        self.headers
            .iter()
            .any(|(name, _)| name == "idempotent-replayed")
    }

    /// The error code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The sentences for the client: the general one, the reason, and one for each bad field.
    pub fn sentences(&self, language: Language) -> Vec<String> {
        let general = Text::new(self.code.general()).render(language);
        let reason = self.reason.iter().map(|reason| reason.render(language));
        let fields = self
            .fields
            .iter()
            .map(|(field, problem)| format!("{field}: {}", problem.render(language)));
        std::iter::once(general)
            .chain(reason)
            .chain(fields)
            .collect()
    }

    /// The answer. The `Allow` header of the original answer is kept.
    pub(crate) fn render(
        &self,
        language: Language,
        problem_json: bool,
        now: Timestamp,
        original: &Response,
    ) -> Response {
        if let Some(source) = &self.source {
            tracing::error!(
                error = events::chain(&**source),
                code = self.code.as_str(),
                "A request failed"
            );
        }
        let status = self.code.status();
        let (media_type, body) = if problem_json {
            (
                "application/problem+json",
                serde_json::to_vec(&self.problem(language)),
            )
        } else {
            let envelope = self.envelope(language, now);
            ("application/json", serde_json::to_vec(&envelope))
        };
        let body = body.expect("strings and numbers are JSON");
        let mut response = (status, [(CONTENT_TYPE, media_type)], body).into_response();
        let headers = response.headers_mut();
        headers.extend(self.headers.iter().cloned());
        for (name, value) in original.headers() {
            if *name == ALLOW {
                headers.insert(name, value.clone());
            }
        }
        headers.insert(
            HeaderName::from_static("x-error-code"),
            HeaderValue::from_static(self.code.as_str()),
        );
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let retry_after = self
            .retry_after
            .or((status == StatusCode::SERVICE_UNAVAILABLE).then_some(1));
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        headers.remove(CONTENT_LENGTH);
        response
    }

    pub(crate) fn envelope(&self, language: Language, now: Timestamp) -> Envelope<()> {
        Envelope {
            is_success: false,
            status_code: self.code.status().as_u16(),
            data: (),
            errors: self.sentences(language),
            timestamp: timestamp(now),
        }
    }

    /// RFC 9457.
    pub(crate) fn problem(&self, language: Language) -> Problem {
        let status = self.code.status();
        Problem {
            r#type: "about:blank",
            title: Text::new(self.code.general()).render(language),
            status: status.as_u16(),
            detail: self.reason.as_ref().map(|reason| reason.render(language)),
            code: self.code.as_str(),
            errors: self
                .fields
                .iter()
                .map(|(field, problem)| FieldProblem {
                    field: field.to_string(),
                    code: problem.key(),
                    detail: problem.render(language),
                })
                .collect(),
        }
    }
}

/// A failure in the form of RFC 9457.
#[derive(Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Always `about:blank`: `code` tells failures apart.
    r#type: &'static str,
    /// The general sentence.
    title: String,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// The precise reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    detail: Option<String>,
    #[schema(value_type = crate::code::ErrorCode)]
    code: &'static str,
    /// The problem of each bad field. Empty if all fields are good.
    errors: Vec<FieldProblem>,
}

/// The problem of a field.
#[derive(Serialize, ToSchema)]
struct FieldProblem {
    /// The name of the member, parameter, header or part.
    field: String,
    /// The problem as a stable name to switch on.
    #[schema(example = "REQUIRED")]
    code: &'static str,
    /// The problem as a sentence.
    detail: String,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
