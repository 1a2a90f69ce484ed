//! The headers in which a client describes itself and the conditions of its request. They are stored with every event
//! and never used for authorisation.

use axum::extract::FromRequestParts;
use axum::http::header::ACCEPT;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use uuid::Uuid;

use crate::code::Code;
use crate::error::ApiError;
use crate::fields::{Fields, whole_number};
use crate::text::{Language, Text};

/// The values of `X-Platform`.
pub const PLATFORMS: [&str; 7] = [
    "web",
    "mobile_ios",
    "mobile_android",
    "admin",
    "api",
    "unknown",
    "all",
];

/// Characters of `X-App-Version` at the most.
pub(crate) const MAX_APP_VERSION: usize = 32;
/// Characters of `X-Device-ID` at the most.
pub(crate) const MAX_DEVICE_ID: usize = 128;
/// Characters of `Idempotency-Key` at the most.
pub(crate) const MAX_IDEMPOTENCY_KEY: usize = 255;

/// The client headers of a request. All of them are valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// `X-Language`.
    pub language: Language,
    /// `X-Timezone`: `UTC` or `UTC±hh:mm`.
    pub timezone: String,
    /// `X-Platform`: one of [`PLATFORMS`].
    pub platform: String,
    /// `X-App-Version`, at most 32 characters.
    pub app_version: Option<String>,
    /// `X-Device-ID`, at most 128 characters.
    pub device_id: Option<String>,
    /// `X-Request-ID`, or the id that was generated for the request.
    pub request_id: String,
    /// The W3C trace context, if it is valid.
    pub traceparent: Option<String>,
}

/// The id of a request: the client's own if it can be echoed, otherwise a new one.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

impl RequestId {
    pub(crate) fn of(headers: &HeaderMap, new: impl FnOnce() -> Uuid) -> Self {
        let given = single(headers, "x-request-id").ok().flatten();
        Self(
            given
                .filter(|id| visible(id, 128))
                .map_or_else(|| new().to_string(), str::to_owned),
        )
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let headers = &parts.headers;
        let mut problems = Fields::default();
        let timezone = header(headers, &mut problems, "X-Timezone", timezone);
        let platform = header(headers, &mut problems, "X-Platform", |text| {
            let known = PLATFORMS.iter().find(|known| **known == text);
            known
                .map(ToString::to_string)
                .ok_or_else(|| Text::new("NOT_ALLOWED").with("allowed", PLATFORMS.join(", ")))
        });
        let app_version = header(headers, &mut problems, "X-App-Version", |text| {
            short(text, MAX_APP_VERSION)
        });
        let device_id = header(headers, &mut problems, "X-Device-ID", |text| {
            short(text, MAX_DEVICE_ID)
        });
        problems.finish()?;
        Ok(Self {
            language: Language::of(headers),
            timezone: timezone.unwrap_or_else(|| "UTC".to_owned()),
            platform: platform.unwrap_or_else(|| "web".to_owned()),
            app_version,
            device_id,
            request_id: parts
                .extensions
                .get::<RequestId>()
                .map(|id| id.0.clone())
                .unwrap_or_default(),
            traceparent: single(headers, "traceparent")
                .ok()
                .flatten()
                .filter(|text| is_trace(text))
                .map(str::to_owned),
        })
    }
}

/// The single value of a header. `Err` for several values and for bytes that are not text.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Text> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match std::str::from_utf8(value.as_bytes()) {
            Ok(text) => Ok(Some(text.trim())),
            Err(_) => Err(Text::new("BAD_HEADER")),
        },
        (Some(_), Some(_)) => Err(Text::new("BAD_HEADER")),
    }
}

fn header<T>(
    headers: &HeaderMap,
    problems: &mut Fields,
    name: &'static str,
    parse: impl FnOnce(&str) -> Result<T, Text>,
) -> Option<T> {
    match single(headers, name) {
        Ok(None | Some("")) => None,
        Ok(Some(text)) => parse(text)
            .map_err(|problem| problems.problem(name, problem))
            .ok(),
        Err(problem) => {
            problems.problem(name, problem);
            None
        }
    }
}

/// `UTC`, or `UTC±hh:mm` from -12:00 to +14:00. This range contains every offset in use.
fn timezone(text: &str) -> Result<String, Text> {
    let bad = || Text::new("BAD_TIMEZONE");
    let Some(offset) = text.strip_prefix("UTC") else {
        return Err(bad());
    };
    if offset.is_empty() {
        return Ok(text.to_owned());
    }
    let &[sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] = offset.as_bytes() else {
        return Err(bad());
    };
    let digit = |byte: u8| byte.is_ascii_digit().then(|| i32::from(byte - b'0'));
    let number = |high, low| Some(digit(high)? * 10 + digit(low)?);
    let (hours, minutes) = (
        number(h1, h2).ok_or_else(bad)?,
        number(m1, m2).ok_or_else(bad)?,
    );
    let total = (hours * 60 + minutes) * if sign == b'-' { -1 } else { 1 };
    if minutes > 59 || !(-12 * 60..=14 * 60).contains(&total) {
        return Err(bad());
    }
    Ok(text.to_owned())
}

fn short(text: &str, max: usize) -> Result<String, Text> {
    if text.chars().any(char::is_control) {
        return Err(Text::new("BAD_HEADER"));
    }
    if text.chars().nth(max).is_some() {
        return Err(Text::new("TOO_LONG").with("max", max));
    }
    Ok(text.to_owned())
}

fn visible(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `version-traceid-parentid-flags` (W3C Trace Context, 3.2).
fn is_trace(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let is_hex = |part: &str, length| {
        part.len() == length
            && part
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let is_zero = |part: &str| part.bytes().all(|b| b == b'0');
    matches!(parts[..], [version, trace, parent, flags]
        if is_hex(version, 2) && version != "ff" && is_hex(trace, 32) && !is_zero(trace)
            && is_hex(parent, 16) && !is_zero(parent) && is_hex(flags, 2))
}

/// `If-Match: "<version>"`: the version of the user that the client has seen. Without the header, or with `*`, there is
/// no condition. A value that is not a version cannot match and gets 412, like a wrong version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Precondition(pub Option<u64>);

impl<S: Send + Sync> FromRequestParts<S> for Precondition {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let bad =
            || ApiError::new(Code::VersionMismatch).field("If-Match", Text::new("BAD_IF_MATCH"));
        match single(&parts.headers, "if-match").map_err(|_| bad())? {
            None | Some("*") => Ok(Self(None)),
            Some(text) => {
                let digits = text
                    .strip_prefix('"')
                    .and_then(|text| text.strip_suffix('"'))
                    .ok_or_else(bad)?;
                let version = whole_number(digits).ok_or_else(bad)?;
                Ok(Self(Some(version)))
            }
        }
    }
}

/// `Idempotency-Key`: 1 to 255 visible characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let bad = |problem| ApiError::new(Code::ValidationFailed).field("Idempotency-Key", problem);
        match single(&parts.headers, "idempotency-key").map_err(bad)? {
            None => Ok(Self(None)),
            Some(key) if key.len() > MAX_IDEMPOTENCY_KEY => {
                Err(bad(Text::new("TOO_LONG").with("max", MAX_IDEMPOTENCY_KEY)))
            }
            Some(key) if visible(key, MAX_IDEMPOTENCY_KEY) => Ok(Self(Some(key.to_owned()))),
            Some(_) => Err(bad(Text::new("BAD_HEADER"))),
        }
    }
}

/// The media type that the client prefers among those that a route offers (RFC 9110, 12.5.1). Without a preference it
/// is the first one. `None` when the client accepts none of them. `application/problem+json` concerns failures only: a
/// client that names nothing else has no preference here.
pub fn preferred<'a>(headers: &HeaderMap, offers: &[&'a str]) -> Option<&'a str> {
    let values = headers.get_all(ACCEPT).iter();
    let ranges: Vec<_> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(media_range)
        .filter(|(range, _)| !range.is_empty() && range != "application/problem+json")
        .collect();
    if ranges.is_empty() {
        return offers.first().copied();
    }
    let quality = |offer: &str| {
        let kind = offer.split('/').next().unwrap_or_default();
        let of = |wanted: &str| ranges.iter().find(|(range, _)| range == wanted);
        let range = of(offer).or_else(|| of(&format!("{kind}/*")));
        range
            .or_else(|| of("*/*"))
            .map_or(0.0, |(_, quality)| *quality)
    };
    let mut best = (None, 0.0);
    for offer in offers {
        if quality(offer) > best.1 {
            best = (Some(*offer), quality(offer));
        }
    }
    best.0
}

/// A media range in lower case without its parameters, and its quality.
fn media_range(text: &str) -> (String, f32) {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next().unwrap_or_default().to_ascii_lowercase();
    let quality = parts.find_map(|parameter| {
        let value = parameter
            .strip_prefix("q=")
            .or_else(|| parameter.strip_prefix("Q="))?;
        value.trim().parse().ok()
    });
    (range, quality.unwrap_or(1.0))
}

/// Whether `If-None-Match` contains this tag, quotes included. The comparison is weak (RFC 9110, 13.1.2).
pub fn if_none_match(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(HeaderName::from_static("if-none-match"))
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;
    use proptest::prelude::*;

    async fn extract<T: FromRequestParts<()>>(
        headers: &[(&str, &[u8])],
    ) -> Result<T, T::Rejection> {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        T::from_request_parts(&mut request.body(()).unwrap().into_parts().0, &()).await
    }

    #[tokio::test]
    async fn absent_headers_have_defaults() {
        let client: Client = extract(&[]).await.unwrap();
        assert_eq!(
            (client.timezone.as_str(), client.platform.as_str()),
            ("UTC", "web")
        );
        assert_eq!(client.language, Language::En);
    }

    #[tokio::test]
    async fn bad_headers_are_reported_all_at_once() {
        let error = extract::<Client>(&[
            ("x-timezone", b"UTC+25:00"),
            ("x-platform", b"toaster"),
            ("x-app-version", &[b'1'; 33]),
            ("x-device-id", b"\xff"),
            ("x-language", b"de"),
        ])
        .await
        .unwrap_err();
        assert_eq!(
            error.sentences(Language::En).len(),
            5,
            "{:?}",
            error.sentences(Language::En)
        );
    }

    #[test]
    fn every_offset_of_the_published_page_and_the_forgotten_one_is_a_time_zone() {
        for good in [
            "UTC",
            "UTC-12:00",
            "UTC-09:30",
            "UTC-08:00",
            "UTC+00:00",
            "UTC+05:45",
            "UTC+12:45",
            "UTC+14:00",
        ] {
            assert_eq!(timezone(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "utc",
            "UTC+3",
            "UTC+03:60",
            "UTC+14:01",
            "UTC-12:01",
            "UTC+0３:00",
            "Europe/Istanbul",
            "UTC 03:00",
        ] {
            assert!(timezone(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_precondition_is_a_version_in_quotes() {
        assert_eq!(
            extract::<Precondition>(&[("if-match", b"\"7\"")])
                .await
                .unwrap(),
            Precondition(Some(7))
        );
        assert_eq!(
            extract::<Precondition>(&[("if-match", b"*")])
                .await
                .unwrap(),
            Precondition(None)
        );
        for bad in [
            "7",
            "W/\"7\"",
            "\"\"",
            "\"+7\"",
            "\"x\"",
            "\"7\", \"8\"",
            "\"99999999999999999999\"",
        ] {
            assert!(
                extract::<Precondition>(&[("if-match", bad.as_bytes())])
                    .await
                    .is_err(),
                "{bad}"
            );
        }
    }

    #[tokio::test]
    async fn an_idempotency_key_has_1_to_255_visible_characters() {
        assert!(
            extract::<IdempotencyKey>(&[("idempotency-key", &[b'k'; 255])])
                .await
                .is_ok()
        );
        for bad in [&[b'k'; 256][..], b"", b"a b", b"\xff"] {
            assert!(
                extract::<IdempotencyKey>(&[("idempotency-key", bad)])
                    .await
                    .is_err()
            );
        }
        let twice: [(&str, &[u8]); 2] = [("idempotency-key", b"a"), ("idempotency-key", b"b")];
        assert!(extract::<IdempotencyKey>(&twice).await.is_err());
    }

    #[test]
    fn a_tag_is_found_in_a_list() {
        let mut headers = HeaderMap::new();
        headers.insert("if-none-match", "\"1\", W/\"2\"".parse().unwrap());
        assert!(if_none_match(&headers, "\"2\""));
        assert!(!if_none_match(&headers, "\"3\""));
    }

    #[test]
    fn the_form_that_a_client_prefers_is_chosen() {
        const LINES: &str = "application/x-ndjson";
        const JSON: &str = "application/json";
        for (accept, chosen) in [
            ("", Some(JSON)),
            ("*/*", Some(JSON)),
            ("application/json", Some(JSON)),
            ("APPLICATION/X-NDJSON", Some(LINES)),
            ("application/x-ndjson; charset=utf-8", Some(LINES)),
            ("application/x-ndjson, application/json", Some(JSON)),
            ("application/x-ndjson, */*;q=0.1", Some(LINES)),
            (
                "application/x-ndjson;q=0.5, application/json;q=0.4",
                Some(LINES),
            ),
            ("application/*", Some(JSON)),
            ("application/*, application/json;q=0", Some(LINES)),
            ("application/problem+json", Some(JSON)),
            (
                "application/problem+json, application/x-ndjson",
                Some(LINES),
            ),
            ("text/csv", None),
            ("text/html, image/*", None),
            ("application/x-ndjson;q=0", None),
            ("*/*;q=0", None),
            ("application/x-ndjson;q=NaN", None),
            ("json", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("accept", accept.parse().unwrap());
            assert_eq!(preferred(&headers, &[JSON, LINES]), chosen, "{accept}");
        }
        assert_eq!(preferred(&HeaderMap::new(), &[JSON, LINES]), Some(JSON));
    }

    #[test]
    fn a_request_id_that_cannot_be_echoed_is_replaced() {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", "mine-1".parse().unwrap());
        assert_eq!(RequestId::of(&headers, Uuid::nil).0, "mine-1");
        headers.insert("x-request-id", "a b".parse().unwrap());
        assert_eq!(
            RequestId::of(&headers, Uuid::nil).0,
            Uuid::nil().to_string()
        );
    }

    proptest! {
        #[test]
        fn any_header_text_is_a_value_or_a_problem(text in ".{0,60}") {
            let _ = timezone(&text);
            let _ = short(&text, 32);
            let _ = is_trace(&text);
        }

        #[test]
        fn any_header_bytes_are_a_client_a_condition_and_a_key_or_a_problem(
            bytes in prop_oneof![
                proptest::collection::vec(prop_oneof![Just(b'\t'), 0x20_u8..0x7f, 0x80_u8..=0xff], 0..300),
                "\"[0-9]{0,21}\"|W/\"[0-9]\"|\\*".prop_map(String::into_bytes),
            ],
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let all = ["x-timezone", "x-platform", "x-app-version", "x-device-id", "x-language", "traceparent"];
                let headers = all.map(|name| (name, &bytes[..]));
                if let Ok(client) = extract::<Client>(&headers).await {
                    assert!(client.device_id.is_none_or(|id| !id.chars().any(char::is_control)));
                }
                if let Ok(Precondition(Some(version))) = extract(&[("if-match", &bytes)]).await {
                    let digits = std::str::from_utf8(&bytes).unwrap().trim().trim_matches('"').to_owned();
                    assert_eq!(digits.parse(), Ok(version));
                }
                if let Ok(IdempotencyKey(Some(key))) = extract(&[("idempotency-key", &bytes)]).await {
                    assert!(visible(&key, 255));
                }
                let mut headers = HeaderMap::new();
                headers.insert("if-none-match", bytes[..].try_into().unwrap());
                headers.insert("x-request-id", bytes[..].try_into().unwrap());
                headers.insert("accept", bytes[..].try_into().unwrap());
                let _ = preferred(&headers, &["application/json"]);
                let _ = if_none_match(&headers, "\"1\"");
                assert!(visible(&RequestId::of(&headers, Uuid::nil).0, 128));
            });
        }
    }
}
