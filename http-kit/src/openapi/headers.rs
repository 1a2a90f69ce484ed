//! Headers described: those that clients send, beside what reads them, and those of answers.

use axum::http::StatusCode;
use serde_json::json;
use utoipa::IntoParams;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Parameter, ParameterIn};

use super::{header, schema};
use crate::client::{
    Client, IdempotencyKey, MAX_APP_VERSION, MAX_DEVICE_ID, MAX_IDEMPOTENCY_KEY, PLATFORMS,
    Precondition,
};
use crate::text::Language;

impl IntoParams for Client {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let languages = [Language::En, Language::Tr].map(Language::as_str);
        vec![
            header(
                "X-Language",
                json!({"type": "string", "enum": languages, "default": "en"}),
                "The language of every sentence. Anything else is English.",
            ),
            header(
                "X-Timezone",
                json!({
                    "type": "string",
                    "pattern": r"^(UTC(-(0[0-9]|1[01]):[0-5][0-9]|-12:00|\+(0[0-9]|1[0-3]):[0-5][0-9]|\+14:00)?)?$",
                    "default": "UTC",
                    "examples": ["UTC", "UTC+03:00", "UTC-09:30"],
                }),
                "Where the client is: `UTC`, or an offset from `UTC-12:00` to `UTC+14:00`. Kept with every event.",
            ),
            header(
                "X-Platform",
                json!({"type": "string", "enum": PLATFORMS, "default": "web"}),
                "What the client is. Kept with every event.",
            ),
            header(
                "X-App-Version",
                json!({"type": "string", "maxLength": MAX_APP_VERSION, "pattern": "^[ -~]*$", "examples": ["3.1.4"]}),
                "The version of the app. Kept with every event.",
            ),
            header(
                "X-Device-ID",
                json!({"type": "string", "maxLength": MAX_DEVICE_ID, "pattern": "^[ -~]*$", "examples": ["9f6c1b52-device"]}),
                "The device, in a form that says nothing to anybody else. Kept with every event.",
            ),
            header(
                "X-Request-ID",
                json!({"type": "string", "examples": ["0196f8a2-3c5e-7d10-8f3a-6b1f0c9d2e47"]}),
                "Names the request in the answer, in logs and in events. One that is no text of 1 to 128 visible characters is replaced.",
            ),
        ]
    }
}

impl IntoParams for Precondition {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![header(
            "If-Match",
            json!({"type": "string", "pattern": r#"^("[0-9]+"|\*)$"#, "examples": ["\"3\""]}),
            "The `ETag` of the profile that the command was decided on. Another version now is answered with 412, and nothing is changed.",
        )]
    }
}

impl IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![header(
            "Idempotency-Key",
            json!({
                "type": "string", "minLength": 1, "maxLength": MAX_IDEMPOTENCY_KEY, "pattern": "^[!-~]+$",
                "examples": ["6f1c2a9e-4b7d-4e0f-9a53-2d8b1c7e5f60"],
            }),
            "Makes it safe to send the command again: within 7 days the same request under the same key happens once and gets the same answer.",
        )]
    }
}

fn described(json: serde_json::Value, about: &str) -> Header {
    HeaderBuilder::new()
        .schema(Some(schema(json)))
        .description(Some(about))
        .build()
}

/// Another header of an answer.
pub fn answer_header(about: &str) -> Header {
    described(json!({"type": "string"}), about)
}

/// `ETag`: the version of the user.
pub fn etag() -> Header {
    described(
        json!({"type": "string", "examples": ["\"3\""]}),
        "The version of the user, in quotes: for `If-Match` and `If-None-Match`.",
    )
}

/// `Ledger-Position`.
pub fn position() -> Header {
    described(
        json!({"type": "integer", "format": "int64", "minimum": 0, "examples": [42]}),
        "The position of the last event in the answer: give it as `minPosition` to read your own write.",
    )
}

/// `Idempotent-Replayed`.
pub fn replayed() -> Header {
    described(
        json!({"type": "string", "enum": ["true"]}),
        "The answer is that of an earlier request under the same `Idempotency-Key`.",
    )
}

pub(super) fn request_id() -> Header {
    described(
        json!({"type": "string", "examples": ["0196f8a2-3c5e-7d10-8f3a-6b1f0c9d2e47"]}),
        "The client's own, or the one that was made for the request.",
    )
}

pub(super) fn error_code() -> Header {
    described(
        json!({"$ref": "#/components/schemas/ErrorCode"}),
        "How the request failed: a stable name to switch on.",
    )
}

pub(super) fn challenge() -> Header {
    described(
        json!({"type": "string", "enum": ["Bearer"]}),
        "The scheme of `Authorization`.",
    )
}

pub(super) fn retry_after() -> Header {
    described(
        json!({"type": "integer", "minimum": 0, "examples": [1]}),
        "After how many seconds trying again makes sense.",
    )
}

/// What a status of failure means here.
pub(super) fn meaning(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => {
            "Something in the request is malformed. Every bad field is named at once."
        }
        StatusCode::UNAUTHORIZED => "There is no token, or it is not good.",
        StatusCode::FORBIDDEN => "The token is good, and its roles are not enough.",
        StatusCode::NOT_FOUND => "There is no such user or file.",
        StatusCode::NOT_ACCEPTABLE => "`Accept` names no form in which the route answers.",
        StatusCode::REQUEST_TIMEOUT => {
            "The request took too long. A command may have happened all the same."
        }
        StatusCode::CONFLICT => {
            "It is against the state of things. The code and the second sentence say why."
        }
        StatusCode::PRECONDITION_FAILED => {
            "`If-Match` names another version than that of the user; read it again."
        }
        StatusCode::PAYLOAD_TOO_LARGE => "The body is larger than the route takes.",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "The body is of a type that the route does not read.",
        StatusCode::UNPROCESSABLE_ENTITY => "The `Idempotency-Key` was used with another request.",
        StatusCode::TOO_MANY_REQUESTS => "The caller does too much at once.",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            "There are more than 100 header fields, or they have more than 32 KiB."
        }
        StatusCode::INTERNAL_SERVER_ERROR => "A defect of the service. It is logged.",
        StatusCode::SERVICE_UNAVAILABLE => {
            "The service cannot answer right now, and nothing is half done. Send the same again after `Retry-After`."
        }
        _ => unreachable!("no code has the status {status}"),
    }
}
