//! Every way in which a request can fail: a closed list, and a promise to clients.

use axum::http::StatusCode;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:ident, $general:literal;)*) => {
        /// How a request failed. Its name in `X-Error-Code` never changes.
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

            /// The status it is answered with.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status),* }
            }

            /// The key of the first sentence of its answer.
            pub fn general(self) -> &'static str {
                match self { $(Self::$variant => $general),* }
            }
        }
    };
}

codes! {
    /// Something in the request is malformed.
    ValidationFailed = "VALIDATION_FAILED", BAD_REQUEST, "VALIDATION_FAILED";
    /// No token, or one that is not good.
    AuthenticationRequired = "AUTHENTICATION_REQUIRED", UNAUTHORIZED, "AUTHENTICATION_REQUIRED";
    /// A good token without the role.
    InsufficientPermissions = "INSUFFICIENT_PERMISSIONS", FORBIDDEN, "INSUFFICIENT_PERMISSIONS";
    /// No such user, route or file.
    NotFound = "RESOURCE_NOT_FOUND", NOT_FOUND, "RESOURCE_NOT_FOUND";
    /// The route has other methods.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED";
    /// The client accepts no form in which the route answers.
    NotAcceptable = "NOT_ACCEPTABLE", NOT_ACCEPTABLE, "NOT_ACCEPTABLE";
    /// The request, its body included, took too long.
    RequestTimeout = "REQUEST_TIMEOUT", REQUEST_TIMEOUT, "REQUEST_TIMEOUT";
    /// Another user has the name.
    UsernameTaken = "USERNAME_TAKEN", CONFLICT, "CONFLICT";
    /// The name is held for its former owner.
    UsernameHeld = "USERNAME_HELD", CONFLICT, "CONFLICT";
    /// The last change of the username is too recent.
    UsernameChangeTooSoon = "USERNAME_CHANGE_TOO_SOON", CONFLICT, "CONFLICT";
    /// The user is registered already.
    UserExists = "USER_EXISTS", CONFLICT, "CONFLICT";
    /// `If-Match` names another version.
    VersionMismatch = "VERSION_MISMATCH", PRECONDITION_FAILED, "PRECONDITION_FAILED";
    /// The body is larger than the route allows.
    BodyTooLarge = "BODY_TOO_LARGE", PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE";
    /// The body is of another type than the route reads.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE";
    /// The idempotency key was used with another request.
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED", UNPROCESSABLE_ENTITY, "UNPROCESSABLE";
    /// The caller does too much at once.
    TooManyRequests = "TOO_MANY_REQUESTS", TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS";
    /// The headers are larger than the server reads.
    HeadersTooLarge = "HEADERS_TOO_LARGE", REQUEST_HEADER_FIELDS_TOO_LARGE, "HEADERS_TOO_LARGE";
    /// A defect of the service.
    Internal = "INTERNAL_ERROR", INTERNAL_SERVER_ERROR, "INTERNAL_ERROR";
    /// Something that the service needs is away.
    Unavailable = "UNAVAILABLE", SERVICE_UNAVAILABLE, "UNAVAILABLE";
    /// Too much waits already.
    QueueFull = "QUEUE_FULL", SERVICE_UNAVAILABLE, "UNAVAILABLE";
    /// As many streams are open as the process serves at once.
    TooManyStreams = "TOO_MANY_STREAMS", SERVICE_UNAVAILABLE, "UNAVAILABLE";
    /// The read model has not reached the position asked for.
    NotYetReadable = "NOT_YET_READABLE", SERVICE_UNAVAILABLE, "UNAVAILABLE";
    /// The service is about to stop.
    ShuttingDown = "SHUTTING_DOWN", SERVICE_UNAVAILABLE, "UNAVAILABLE";
}

impl Code {
    /// The code of an answer that a library made.
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

/// Stands for the names of all codes in descriptions.
pub(crate) struct ErrorCode;

impl PartialSchema for ErrorCode {
    fn schema() -> RefOr<Schema> {
        let codes = Code::ALL.iter().map(|code| code.as_str());
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "How a request failed: a stable name to switch on. There may be more in time.",
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
