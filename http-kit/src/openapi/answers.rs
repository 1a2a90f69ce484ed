//! Answers in the OpenAPI document: successes, and every failure of a request.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use axum::http::StatusCode;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use super::headers;
use super::{reference, schema};
use crate::caller::{Caller, OptionalCaller, Role};
use crate::client::{Client, IdempotencyKey, Precondition};
use crate::code::Code;
use crate::error::{ApiError, Problem};
use crate::fields::JsonBody;
use crate::text::{Language, Text};

/// The time of every example.
const NOW: &str = "2026-05-22T16:11:26.808Z";

/// A part of a handler that can refuse the request, such as an extractor.
pub trait Refuses {
    /// One failure for each possible error code.
    fn refusals() -> Vec<ApiError>;
}

/// The failures of the parts of a handler, in order, and the failures that every request can have.
pub struct Fails<T>(PhantomData<T>);

/// The requested resource does not exist.
pub struct NotThere;

/// A dependency of the service is not available.
pub struct Away;

macro_rules! refuses_in_order {
    ($($($part:ident),+;)*) => {$(
        impl<$($part: Refuses),+> Refuses for ($($part,)+) {
            fn refusals() -> Vec<ApiError> {
                [$($part::refusals()),+].concat()
            }
        }
    )*};
}

refuses_in_order! {
    A, B;
    A, B, C;
    A, B, C, D;
    A, B, C, D, E;
    A, B, C, D, E, F;
}

impl Refuses for () {
    fn refusals() -> Vec<ApiError> {
        Vec::new()
    }
}

impl Refuses for Caller {
    fn refusals() -> Vec<ApiError> {
        vec![ApiError::new(Code::AuthenticationRequired)]
    }
}

impl Refuses for OptionalCaller {
    fn refusals() -> Vec<ApiError> {
        Caller::refusals()
    }
}

impl Refuses for Role {
    fn refusals() -> Vec<ApiError> {
        vec![ApiError::new(Code::InsufficientPermissions)]
    }
}

impl Refuses for Client {
    fn refusals() -> Vec<ApiError> {
        let bad = ApiError::new(Code::ValidationFailed);
        vec![bad.field("X-Timezone", Text::new("BAD_TIMEZONE"))]
    }
}

impl Refuses for Precondition {
    fn refusals() -> Vec<ApiError> {
        let bad = ApiError::new(Code::VersionMismatch);
        vec![bad.field("If-Match", Text::new("BAD_IF_MATCH"))]
    }
}

impl Refuses for IdempotencyKey {
    fn refusals() -> Vec<ApiError> {
        let bad = ApiError::new(Code::ValidationFailed);
        vec![bad.field("Idempotency-Key", Text::new("BAD_HEADER"))]
    }
}

impl Refuses for JsonBody {
    fn refusals() -> Vec<ApiError> {
        let bad = ApiError::new(Code::ValidationFailed);
        let unread = Text::new("NOT_JSON").with("line", 1).with("column", 18);
        vec![
            ApiError::new(Code::UnsupportedMediaType),
            ApiError::new(Code::BodyTooLarge),
            bad.field("body", unread),
        ]
    }
}

impl Refuses for NotThere {
    fn refusals() -> Vec<ApiError> {
        vec![ApiError::new(Code::NotFound)]
    }
}

impl Refuses for Away {
    fn refusals() -> Vec<ApiError> {
        vec![ApiError::new(Code::Unavailable).retry_after(1)]
    }
}

/// The failures that every request can have.
fn anywhere() -> [ApiError; 3] {
    [Code::RequestTimeout, Code::HeadersTooLarge, Code::Internal].map(ApiError::new)
}

impl<T: Refuses> IntoResponses for Fails<T> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut by_status: BTreeMap<StatusCode, Vec<ApiError>> = BTreeMap::new();
        for error in T::refusals().into_iter().chain(anywhere()) {
            let of_status = by_status.entry(error.code().status()).or_default();
            // A later part is closer to the route, so its example is better.
            match of_status.iter_mut().find(|one| one.code() == error.code()) {
                Some(one) => *one = error,
                None => of_status.push(error),
            }
        }
        let responses = by_status.into_iter();
        responses
            .map(|(status, errors)| (status.as_str().to_owned(), failure(status, &errors).into()))
            .collect()
    }
}

/// The answer to failures of one status, in both formats.
fn failure(status: StatusCode, errors: &[ApiError]) -> Response {
    let now: Timestamp = NOW.parse().expect("it is a time");
    let envelopes = examples(errors, |error, language| {
        json!(error.envelope(language, now))
    });
    let problems = examples(errors, |error, language| json!(error.problem(language)));
    let mut response = ResponseBuilder::new()
        .description(headers::meaning(status))
        .header("X-Error-Code", headers::error_code())
        .header("X-Request-ID", headers::request_id());
    if errors.iter().any(ApiError::is_replayed) {
        response = response.header("Idempotent-Replayed", headers::replayed());
    }
    match status {
        StatusCode::UNAUTHORIZED => {
            response = response.header("WWW-Authenticate", headers::challenge());
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            response = response.header("Retry-After", headers::retry_after());
        }
        _ => {}
    }
    let content = |name, examples: Map<String, Value>| {
        let json = json!({"schema": {"$ref": format!("#/components/schemas/{name}")}, "examples": examples});
        serde_json::from_value::<utoipa::openapi::Content>(json).expect("it is a content")
    };
    response
        .content("application/json", content("Failure", envelopes))
        .content("application/problem+json", content("Problem", problems))
        .build()
}

/// An example of each failure by the name of its code, in every language. [`super::document`] chooses one language.
fn examples(
    errors: &[ApiError],
    render: impl Fn(&ApiError, Language) -> Value,
) -> Map<String, Value> {
    let example = |error: &ApiError| {
        let languages = [Language::En, Language::Tr].into_iter();
        let value: Map<_, _> = languages
            .map(|language| (language.as_str().to_owned(), render(error, language)))
            .collect();
        let name = error.code().as_str().to_owned();
        (name, json!({"value": value}))
    };
    errors.iter().map(example).collect()
}

/// A successful answer with data in the envelope.
pub fn answer<T: ToSchema>(about: &str, status: u16, data: &Value) -> ResponseBuilder {
    let envelope = json!({
        "isSuccess": true, "statusCode": status, "data": data, "errors": [], "timestamp": NOW,
    });
    let data = match T::schema() {
        inline @ RefOr::T(Schema::Array(_)) => inline,
        _ => reference(&T::name()),
    };
    let schema = schema(json!({
        "type": "object",
        "required": ["isSuccess", "statusCode", "data", "errors", "timestamp"],
        "properties": {
            "isSuccess": {"type": "boolean", "enum": [true]},
            "statusCode": {"type": "integer", "enum": [status]},
            "data": data,
            "errors": {"type": "array", "items": {"type": "string"}, "maxItems": 0},
            "timestamp": {"$ref": "#/components/schemas/Time"},
        },
        "additionalProperties": false,
    }));
    let content = ContentBuilder::new()
        .schema(Some(schema))
        .example(Some(envelope));
    described(about).content("application/json", content.build())
}

/// An answer that is JSON without the envelope.
pub fn json(about: &str, json: Value, example: Value) -> ResponseBuilder {
    let content = ContentBuilder::new()
        .schema(Some(schema(json)))
        .example(Some(example));
    described(about).content("application/json", content.build())
}

/// A successful answer that is text.
pub fn text(about: &str, media_type: &str, example: &str) -> ResponseBuilder {
    let content = ContentBuilder::new()
        .schema(Some(schema(json!({"type": "string"}))))
        .example(Some(json!(example)));
    described(about).content(media_type, content.build())
}

/// A successful answer that is a stream. OpenAPI 3.1 can only show an example of one.
pub fn stream(about: &str, media_type: &str, example: &str) -> ResponseBuilder {
    let content = ContentBuilder::new().example(Some(json!(example)));
    described(about).content(media_type, content.build())
}

/// A successful answer that is bytes.
pub fn bytes(about: &str, media_types: &[&str]) -> ResponseBuilder {
    // JSON Schema does not describe bytes.
    let mut response = described(about);
    for media_type in media_types {
        response = response.content(*media_type, ContentBuilder::new().build());
    }
    response
}

/// An answer without a described body.
pub fn described(about: &str) -> ResponseBuilder {
    ResponseBuilder::new()
        .description(about)
        .header("X-Request-ID", headers::request_id())
}

/// The schemas of failures.
pub(super) fn schemas() -> Vec<(String, RefOr<Schema>)> {
    let mut schemas = vec![
        (
            "Failure".to_owned(),
            schema(json!({
                "type": "object",
                "description": "The envelope of a failure.",
                "required": ["isSuccess", "statusCode", "data", "errors", "timestamp"],
                "properties": {
                    "isSuccess": {"type": "boolean", "enum": [false]},
                    "statusCode": {"type": "integer", "minimum": 400, "maximum": 599},
                    "data": {"type": "null"},
                    "errors": {
                        "type": "array",
                        "description": "Sentences for people, in the language of `X-Language`: the general one, then the reason or one for each bad field.",
                        "items": {"type": "string"},
                        "minItems": 1,
                    },
                    "timestamp": {"$ref": "#/components/schemas/Time"},
                },
                "additionalProperties": false,
            })),
        ),
        (
            "Time".to_owned(),
            schema(json!({
                "type": "string",
                "format": "date-time",
                "description": "UTC, with milliseconds and `Z`.",
                "examples": [NOW],
            })),
        ),
        ("Problem".to_owned(), Problem::schema()),
    ];
    Problem::schemas(&mut schemas);
    schemas
}
