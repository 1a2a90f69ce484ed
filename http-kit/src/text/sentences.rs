//! The English sentences of answers to requests that fail, by their keys: stable names to switch on.

/// Each key and its sentence; `{name}` is a placeholder. The Turkish sentences are in `turkish.json`.
pub(super) const SENTENCES: &[(&str, &str)] = &[
    // The first sentence of an answer, by status.
    ("VALIDATION_FAILED", "Validation failed"),
    ("AUTHENTICATION_REQUIRED", "Authentication required"),
    ("INSUFFICIENT_PERMISSIONS", "Insufficient permissions"),
    ("RESOURCE_NOT_FOUND", "Resource not found"),
    (
        "METHOD_NOT_ALLOWED",
        "This method is not allowed here; see the Allow header",
    ),
    (
        "NOT_ACCEPTABLE",
        "There is no answer in a form that you accept; see the Accept header",
    ),
    ("REQUEST_TIMEOUT", "The request took too long"),
    (
        "CONFLICT",
        "Resource already exists or cannot be changed in its current state",
    ),
    (
        "PRECONDITION_FAILED",
        "The resource has changed since you read it",
    ),
    ("BODY_TOO_LARGE", "The request body is too large"),
    (
        "UNSUPPORTED_MEDIA_TYPE",
        "The Content-Type is not supported here",
    ),
    ("UNPROCESSABLE", "The request cannot be processed"),
    ("TOO_MANY_REQUESTS", "Too many requests"),
    ("HEADERS_TOO_LARGE", "The request headers are too large"),
    ("INTERNAL_ERROR", "Something went wrong on our side"),
    (
        "UNAVAILABLE",
        "The service cannot answer right now; try again shortly",
    ),
    // Why a command was refused.
    (
        "USERNAME_TAKEN",
        "The username {username} is taken; choose another one.",
    ),
    (
        "USERNAME_HELD",
        "The username {username} is held for its former owner until {until}; choose another one.",
    ),
    (
        "USERNAME_CHANGE_TOO_SOON",
        "A username can be changed once in {days} days; yours can be changed again from {next}.",
    ),
    ("USER_EXISTS", "The user {id} is registered already."),
    (
        "VERSION_MISMATCH",
        "You decided on version {expected}, but the user is at version {actual}; read it again.",
    ),
    (
        "IDEMPOTENCY_KEY_REUSED",
        "This Idempotency-Key was used with another request; use a new key for each command.",
    ),
    (
        "ONE_UPLOAD_AT_A_TIME",
        "Another upload of yours is under way; wait until it ends.",
    ),
    (
        "QUEUE_FULL",
        "Too many commands are waiting; try again shortly.",
    ),
    (
        "PHOTO_BUSY",
        "Too many photos are being processed; try again shortly.",
    ),
    (
        "SHUTTING_DOWN",
        "The service is restarting; try again shortly.",
    ),
    (
        "NOT_YET_READABLE",
        "Position {position} cannot be read yet; try again shortly.",
    ),
    (
        "NOT_YET_SIGNED",
        "The log is not signed up to position {position} yet; try again in a second.",
    ),
    // Why a read was refused.
    (
        "NOT_REGISTERED_THEN",
        "The user was not registered yet: its first event is at position {position}, recorded at {time}.",
    ),
    ("ACCEPTABLE", "Accept one of: {allowed}."),
    (
        "TOO_MANY_STREAMS",
        "Too many streams are open; try again shortly.",
    ),
    (
        "NO_SUCH_EVENT_TYPE",
        "There is no schema of this name; there are: {known}.",
    ),
    (
        "NO_SUCH_SCHEMA_VERSION",
        "There is no such version of this schema; there are: {known}.",
    ),
    // What is wrong with a field.
    ("REQUIRED", "is required"),
    ("UNKNOWN_FIELD", "is not a known field"),
    ("DUPLICATE_FIELD", "is given more than once"),
    ("WRONG_TYPE", "must be of type {expected}"),
    (
        "NOT_JSON",
        "is not valid JSON (line {line}, column {column})",
    ),
    ("NOT_AN_OBJECT", "must be a JSON object"),
    ("NOT_UTF8", "is not valid percent-encoded UTF-8"),
    ("TOO_SHORT", "must have at least {min} characters"),
    ("TOO_LONG", "must have at most {max} characters"),
    ("NOT_ALLOWED", "must be one of: {allowed}"),
    (
        "BAD_CHARACTERS",
        "has control, invisible or direction-changing characters",
    ),
    (
        "USERNAME_CHARACTERS",
        "may only have the letters a-z, digits, . and _; how about: {suggestion}",
    ),
    (
        "USERNAME_LETTERS",
        "may only have the letters a-z, digits, . and _",
    ),
    (
        "USERNAME_SHAPE",
        "must begin and end with a letter or digit, without two separators in a row",
    ),
    ("USERNAME_RESERVED", "is reserved; choose another one"),
    (
        "BAD_DATE",
        "must be a date such as 1995-06-15, or a date-time such as 1995-06-15T00:00:00.000Z",
    ),
    ("DATE_OUT_OF_RANGE", "must be between {min} and {max}"),
    (
        "TOO_YOUNG",
        "must be that of a person of at least {min} years",
    ),
    ("TOO_MANY", "must have at most {max} items"),
    (
        "BAD_SLUG",
        "may only have items of 2 to 32 characters of a-z, 0-9 and -",
    ),
    (
        "BAD_EMAIL",
        "must be one e-mail address such as name@example.com",
    ),
    (
        "BAD_HANDLE",
        "must be a handle of 1 to 50 letters, digits, . _ or -, without @",
    ),
    (
        "BAD_COUNTRY_CODE",
        "must be a country code of 1 to 3 digits, such as 90",
    ),
    (
        "BAD_PHONE_NUMBER",
        "must be 4 to 14 digits, and at most 15 together with the country code",
    ),
    ("BAD_ID", "must be 24 lower-case hexadecimal digits"),
    ("BAD_NUMBER", "must be a whole number from {min} to {max}"),
    ("BEYOND_END", "must be at most {max}, which is the newest"),
    ("NOT_TOGETHER", "cannot be given together with {other}"),
    (
        "BAD_TIME",
        "must be a time such as 2026-05-22T16:11:26.808Z; write a + as %2B",
    ),
    (
        "IN_THE_FUTURE",
        "must not be in the future; it is {now} now",
    ),
    ("BEFORE_FROM", "must not be before {from}"),
    (
        "BAD_TIMEZONE",
        "must be UTC or an offset such as UTC+03:00, from UTC-12:00 to UTC+14:00",
    ),
    ("BAD_HEADER", "must be given once, in visible characters"),
    ("BAD_IF_MATCH", "must be a version in quotes, such as \"3\""),
    // What is wrong with a photo.
    (
        "PHOTO_MISSING",
        "is required: one part of a multipart/form-data body",
    ),
    (
        "PHOTO_MORE_THAN_ONE",
        "is given more than once; send one photo",
    ),
    ("PHOTO_EMPTY", "is empty"),
    (
        "PHOTO_FORMAT_UNSUPPORTED",
        "is a {format} file, which is not supported; send JPEG, PNG, WebP or GIF",
    ),
    (
        "PHOTO_FORMAT_UNKNOWN",
        "is not a photo; send JPEG, PNG, WebP or GIF",
    ),
    (
        "PHOTO_TOO_MANY_BYTES",
        "A photo may have at most {max} MiB.",
    ),
    (
        "PHOTO_TOO_MANY_PIXELS",
        "has too many pixels; at most {max} megapixels are allowed",
    ),
    (
        "PHOTO_TOO_LARGE",
        "is too wide or too high; at most {max} pixels a side are allowed",
    ),
    (
        "PHOTO_TOO_SMALL",
        "is too small; the shorter side must have at least {min} pixels",
    ),
    ("PHOTO_DAMAGED", "is damaged and cannot be read"),
    ("BAD_MULTIPART", "is not a valid multipart/form-data body"),
];
