//! The error codes: a closed list of the ways in which a request can fail. Their names are a promise to clients.

use axum::http::StatusCode;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:ident, $general:literal;)*) => {
        /// The reason of a failure. Its name in `X-Error-Code` never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable name, upper snake case.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The HTTP status of the answer.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status),* }
            }

            /// The key of the first sentence of the answer.
            pub fn general(self) -> &'static str {
                match self { $(Self::$variant => $general),* }
            }
        }
    };
}

codes! {
    /// Something in the request is malformed.
    ValidationFailed = "VALIDATION_FAILED", BAD_REQUEST, "VALIDATION_FAILED";
    /// The token is missing or invalid.
    AuthenticationRequired = "AUTHENTICATION_REQUIRED", UNAUTHORIZED, "AUTHENTICATION_REQUIRED";
    /// The token is valid but lacks the role.
    InsufficientPermissions = "INSUFFICIENT_PERMISSIONS", FORBIDDEN, "INSUFFICIENT_PERMISSIONS";
    /// The user, route or file does not exist.
    NotFound = "RESOURCE_NOT_FOUND", NOT_FOUND, "RESOURCE_NOT_FOUND";
    /// The route does not support the method.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED";
    /// The client does not accept any media type of the route.
    NotAcceptable = "NOT_ACCEPTABLE", NOT_ACCEPTABLE, "NOT_ACCEPTABLE";
    /// The request, its body included, took too long.
    RequestTimeout = "REQUEST_TIMEOUT", REQUEST_TIMEOUT, "REQUEST_TIMEOUT";
    /// Another user has the username.
    UsernameTaken = "USERNAME_TAKEN", CONFLICT, "CONFLICT";
    /// The username is reserved for its former owner.
    UsernameHeld = "USERNAME_HELD", CONFLICT, "CONFLICT";
    /// The last change of the username is too recent.
    UsernameChangeTooSoon = "USERNAME_CHANGE_TOO_SOON", CONFLICT, "CONFLICT";
    /// The user is registered already.
    UserExists = "USER_EXISTS", CONFLICT, "CONFLICT";
    /// `If-Match` names another version of the user.
    VersionMismatch = "VERSION_MISMATCH", PRECONDITION_FAILED, "PRECONDITION_FAILED";
    /// The body is larger than the route allows.
    BodyTooLarge = "BODY_TOO_LARGE", PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE";
    /// The route does not read bodies of this type.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE";
    /// The idempotency key was used with another request.
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED", UNPROCESSABLE_ENTITY, "UNPROCESSABLE";
    /// The caller has too many requests in progress.
    TooManyRequests = "TOO_MANY_REQUESTS", TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS";
    /// The headers are larger than the server accepts.
    HeadersTooLarge = "HEADERS_TOO_LARGE", REQUEST_HEADER_FIELDS_TOO_LARGE, "HEADERS_TOO_LARGE";
    /// The service has a defect.
    Internal = "INTERNAL_ERROR", INTERNAL_SERVER_ERROR, "INTERNAL_ERROR";
    /// A dependency of the service is not available.
    Unavailable = "UNAVAILABLE", SERVICE_UNAVAILABLE, "UNAVAILABLE";
    /// The queue of commands is full.
    QueueFull = "QUEUE_FULL", SERVICE_UNAVAILABLE, "UNAVAILABLE";
    /// The process already serves its maximum number of streams.
    TooManyStreams = "TOO_MANY_STREAMS", SERVICE_UNAVAILABLE, "UNAVAILABLE";
    /// The read model has not reached the requested position.
    NotYetReadable = "NOT_YET_READABLE", SERVICE_UNAVAILABLE, "UNAVAILABLE";
    /// The service is shutting down.
    ShuttingDown = "SHUTTING_DOWN", SERVICE_UNAVAILABLE, "UNAVAILABLE";
}

impl Code {
    /// The code for a failed answer that a library made.
    pub(crate) fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::AuthenticationRequired,
            StatusCode::FORBIDDEN => Self::InsufficientPermissions,
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::NOT_ACCEPTABLE => Self::NotAcceptable,
            StatusCode::REQUEST_TIMEOUT => Self::RequestTimeout,
            StatusCode::PAYLOAD_TOO_LARGE => Self::BodyTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Self::HeadersTooLarge,
            StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            status if status.is_client_error() => Self::ValidationFailed,
            _ => Self::Internal,
        }
    }
}

/// The names of all codes in the OpenAPI document.
pub(crate) struct ErrorCode;

impl PartialSchema for ErrorCode {
    fn schema() -> RefOr<Schema> {
        let codes = Code::ALL.iter().map(|code| code.as_str());
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "The error code: a stable name to switch on. More codes may be added.",
            ))
            .enum_values(Some(codes))
            .into()
    }
}

impl ToSchema for ErrorCode {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_text_and_a_name_of_its_own() {
        let mut names = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(crate::text::english(code.general()).is_some(), "{code:?}");
            assert!(names.insert(code.as_str()), "{code:?} shares its name");
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }
}
