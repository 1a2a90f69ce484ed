//! Headers in the OpenAPI document: those that clients send, and those of answers.

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
                "The language of every sentence. Other values mean English.",
            ),
            header(
                "X-Timezone",
                json!({
                    "type": "string",
                    "pattern": r"^(UTC(-(0[0-9]|1[01]):[0-5][0-9]|-12:00|\+(0[0-9]|1[0-3]):[0-5][0-9]|\+14:00)?)?$",
                    "default": "UTC",
                    "examples": ["UTC", "UTC+03:00", "UTC-09:30"],
                }),
                "The time zone of the client: `UTC`, or an offset from `UTC-12:00` to `UTC+14:00`. It is stored with every event.",
            ),
            header(
                "X-Platform",
                json!({"type": "string", "enum": PLATFORMS, "default": "web"}),
                "The platform of the client. It is stored with every event.",
            ),
            header(
                "X-App-Version",
                json!({"type": "string", "maxLength": MAX_APP_VERSION, "pattern": "^[ -~]*$", "examples": ["3.1.4"]}),
                "The version of the app. It is stored with every event.",
            ),
            header(
                "X-Device-ID",
                json!({"type": "string", "maxLength": MAX_DEVICE_ID, "pattern": "^[ -~]*$", "examples": ["9f6c1b52-device"]}),
                "The device, as an identifier that only the client understands. It is stored with every event.",
            ),
            header(
                "X-Request-ID",
                json!({"type": "string", "examples": ["0196f8a2-3c5e-7d10-8f3a-6b1f0c9d2e47"]}),
                "The id of the request in the answer, in logs and in events. A value that does not have 1 to 128 visible characters is replaced.",
            ),
        ]
    }
}

impl IntoParams for Precondition {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![header(
            "If-Match",
            json!({"type": "string", "pattern": r#"^("[0-9]+"|\*)$"#, "examples": ["\"3\""]}),
            "The `ETag` of the profile that the client has seen. If the profile has another version now, the answer is 412 and nothing is changed.",
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
            "Makes it safe to send the command again. Within 7 days, the same request with the same key is executed once and gets the same answer.",
        )]
    }
}

fn described(json: serde_json::Value, about: &str) -> Header {
    HeaderBuilder::new()
        .schema(Some(schema(json)))
        .description(Some(about))
        .build()
}

/// A header of an answer that is text.
pub fn answer_header(about: &str) -> Header {
    described(json!({"type": "string"}), about)
}

/// `ETag`: the version of the user.
pub fn etag() -> Header {
    described(
        json!({"type": "string", "examples": ["\"3\""]}),
        "The version of the user in quotes, for `If-Match` and `If-None-Match`.",
    )
}

/// `Ledger-Position`.
pub fn position() -> Header {
    described(
        json!({"type": "integer", "format": "int64", "minimum": 0, "examples": [42]}),
        "The position of the last event in the answer. Send it as `minPosition` to read your own write.",
    )
}

/// `Idempotent-Replayed`.
pub fn replayed() -> Header {
    described(
        json!({"type": "string", "enum": ["true"]}),
        "This is the answer to an earlier request with the same `Idempotency-Key`.",
    )
}

pub(super) fn request_id() -> Header {
    described(
        json!({"type": "string", "examples": ["0196f8a2-3c5e-7d10-8f3a-6b1f0c9d2e47"]}),
        "The id from the client, or a generated one.",
    )
}

pub(super) fn error_code() -> Header {
    described(
        json!({"$ref": "#/components/schemas/ErrorCode"}),
        "The error code: a stable name to switch on.",
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
        "The number of seconds to wait before trying again.",
    )
}

/// The meaning of a status of failure.
pub(super) fn meaning(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => {
            "Something in the request is malformed. The answer names every bad field."
        }
        StatusCode::UNAUTHORIZED => "The token is missing or invalid.",
        StatusCode::FORBIDDEN => "The token is valid, but its roles are not sufficient.",
        StatusCode::NOT_FOUND => "The user or file does not exist.",
        StatusCode::NOT_ACCEPTABLE => "`Accept` does not name a media type of this route.",
        StatusCode::REQUEST_TIMEOUT => {
            "The request took too long. A command may have been executed nevertheless."
        }
        StatusCode::CONFLICT => {
            "The current state does not allow the request. The code and the second sentence say why."
        }
        StatusCode::PRECONDITION_FAILED => {
            "`If-Match` does not name the current version of the user. Read the profile again."
        }
        StatusCode::PAYLOAD_TOO_LARGE => "The body is larger than the route accepts.",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "The route does not read bodies of this type.",
        StatusCode::UNPROCESSABLE_ENTITY => "The `Idempotency-Key` was used with another request.",
        StatusCode::TOO_MANY_REQUESTS => "The caller has too many requests in progress.",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            "There are more than 100 header fields, or they are larger than 32 KiB."
        }
        StatusCode::INTERNAL_SERVER_ERROR => "The service has a defect. It is logged.",
        StatusCode::SERVICE_UNAVAILABLE => {
            "The service cannot answer right now. Nothing was changed in part. Send the same request again after `Retry-After`."
        }
        _ => unreachable!("no code has the status {status}"),
    }
}
