//! What the tests of the routes share: requests to a router as a function, and whole answers. A clock
//! that stands at [`NOW`], tokens that are good then, and [`hostile`] requests.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::caller::{Grant, Role, Verifier, mint_hs256};
use crate::clock::Clock;
use crate::keys::Keys;

pub mod described;
pub mod hostile;

/// The time at which tests take place: that of the published page.
pub const NOW: &str = "2026-05-22T16:11:26.808Z";

const SECRET: &[u8] = b"a secret of the tests of the routes";

/// [`NOW`] as a time.
pub fn now() -> Timestamp {
    NOW.parse().expect("it is a time")
}

/// Takes the tokens of [`token`].
pub fn verifier(clock: Clock) -> Arc<Verifier> {
    let keys = Keys::secret(SECRET).expect("the secret is long enough");
    Arc::new(Verifier::new(keys, None, None, clock))
}

/// A token that is good for a year from [`NOW`] on.
pub fn token(subject: &str, roles: &[Role]) -> String {
    token_until(subject, roles, now() + (365 * 24).hours())
}

fn token_until(subject: &str, roles: &[Role], expires: Timestamp) -> String {
    let grant = Grant {
        subject,
        roles,
        issuer: None,
        audience: None,
        issued: now(),
        expires,
    };
    mint_hs256(SECRET, &grant)
}

/// Every byte percent-encoded, so that any text can be part of a URI.
pub fn percent(text: impl AsRef<[u8]>) -> String {
    use std::fmt::Write as _;
    text.as_ref()
        .iter()
        .fold(String::new(), |mut encoded, byte| {
            let _ = write!(encoded, "%{byte:02x}");
            encoded
        })
}

/// A request in the making.
#[derive(Debug, Clone)]
pub struct Ask {
    method: String,
    uri: String,
    headers: Vec<(String, Vec<u8>)>,
    payload: Payload,
}

#[derive(Debug, Clone)]
enum Payload {
    Bytes(Bytes),
    /// The bytes, in pieces and without a length.
    Chunks(Bytes),
    /// The bytes, and then the connection breaks.
    Broken(Bytes),
    /// Never ends.
    Endless,
}

impl Ask {
    /// A request without a body.
    pub fn new(method: &str, uri: &str) -> Self {
        Self {
            method: method.to_owned(),
            uri: uri.to_owned(),
            headers: Vec::new(),
            payload: Payload::Bytes(Bytes::new()),
        }
    }

    /// The same with another method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// The same for another URI.
    #[must_use]
    pub fn uri(mut self, uri: &str) -> Self {
        uri.clone_into(&mut self.uri);
        self
    }

    /// One header field more, also of a name that is there already.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The same without a header.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers
            .retain(|(header, _)| !header.eq_ignore_ascii_case(name));
        self
    }

    /// With a token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// With a body of JSON.
    #[must_use]
    pub fn json(self, json: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(json.to_string())
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.payload = Payload::Bytes(bytes.into());
        self
    }

    /// With a body that comes in pieces.
    #[must_use]
    pub fn chunked(mut self, bytes: impl Into<Bytes>) -> Self {
        self.payload = Payload::Chunks(bytes.into());
        self
    }

    /// With a body that breaks off.
    #[must_use]
    pub fn broken(mut self, bytes: impl Into<Bytes>) -> Self {
        self.payload = Payload::Broken(bytes.into());
        self
    }

    /// With a body that never ends.
    #[must_use]
    pub fn endless(mut self) -> Self {
        self.payload = Payload::Endless;
        self
    }

    /// Sends it and reads the whole answer.
    pub async fn send(self, router: &Router) -> Answer {
        let (parts, body) = self.open(router).await.into_parts();
        let body = body.collect().await.expect("the answer does not break off");
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.to_bytes(),
        }
    }

    /// Sends it; the answer's body is still to be read, and may have no end.
    pub async fn open(self, router: &Router) -> Response {
        let mut request = Request::builder()
            .method(self.method.as_str())
            .uri(&self.uri);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let request = request
            .body(self.payload.into_body())
            .expect("a test makes a request that can be sent");
        router
            .clone()
            .oneshot(request)
            .await
            .unwrap_or_else(|never| match never {})
    }
}

impl Payload {
    fn into_body(self) -> Body {
        use futures::stream::{StreamExt as _, iter, once, repeat_with};
        const PIECE: usize = 8 * 1024;
        type Piece = Result<Bytes, std::io::Error>;
        let pieces = |bytes: Bytes| {
            let pieces: Vec<Piece> = bytes
                .chunks(PIECE)
                .map(|piece| Ok(Bytes::copy_from_slice(piece)))
                .collect();
            iter(pieces)
        };
        match self {
            Self::Bytes(bytes) => Body::from(bytes),
            Self::Chunks(bytes) => Body::from_stream(pieces(bytes)),
            Self::Broken(bytes) => {
                let end = once(async { Piece::Err(std::io::ErrorKind::ConnectionReset.into()) });
                Body::from_stream(pieces(bytes).chain(end))
            }
            Self::Endless => {
                let piece = || Piece::Ok(Bytes::from_static(&[b' '; PIECE]));
                Body::from_stream(repeat_with(piece))
            }
        }
    }
}

/// The whole answer to a request.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The text of a header that is there once at the most.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().expect("headers are visible text");
        assert!(values.next().is_none(), "{name} is there more than once");
        Some(value)
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// `data` of a success.
    #[track_caller]
    pub fn data(&self) -> Value {
        self.json()["data"].clone()
    }

    /// Compares status and the whole body, also the order of the members.
    #[track_caller]
    pub fn is(&self, status: u16, body: &Value) {
        let found = self.json();
        let pretty =
            |json: &Value| serde_json::to_string_pretty(json).expect("what was JSON is JSON");
        let (found, wanted) = (pretty(&found), pretty(body));
        assert!(
            self.status == status && found == wanted,
            "{} instead of {status}, {found}\ninstead of\n{wanted}",
            self.status
        );
        assert_eq!(self.header("content-type"), Some("application/json"));
    }

    /// Compares with a success: the envelope of [`NOW`] and these data.
    #[track_caller]
    pub fn succeeds(&self, status: u16, data: &Value) {
        let envelope = json!({
            "isSuccess": true, "statusCode": status, "data": data, "errors": [], "timestamp": NOW,
        });
        self.is(status, &envelope);
        assert!(self.header("x-error-code").is_none());
    }

    /// Compares with a failure: the envelope of [`NOW`], these sentences and this code.
    #[track_caller]
    pub fn fails(&self, status: u16, code: &str, sentences: &[&str]) {
        let envelope = json!({
            "isSuccess": false, "statusCode": status, "data": null, "errors": sentences, "timestamp": NOW,
        });
        self.is(status, &envelope);
        assert_eq!(self.header("x-error-code"), Some(code));
    }
}

/// Sends a request that is refused, in both languages, and compares the whole answers; then as somebody
/// who wants problem details (RFC 9457).
pub async fn refuses(
    router: &Router,
    ask: &Ask,
    status: u16,
    code: &str,
    english: &[&str],
    turkish: &[&str],
) {
    let answer = ask.clone().send(router).await;
    answer.fails(status, code, english);
    let answer = ask.clone().header("x-language", "tr").send(router).await;
    answer.fails(status, code, turkish);
    let answer = ask
        .clone()
        .header("accept", "application/problem+json")
        .send(router)
        .await;
    assert_eq!(answer.status, status);
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    let problem = answer.json();
    assert_eq!(
        (&problem["title"], &problem["status"], &problem["code"]),
        (&json!(english[0]), &json!(status), &json!(code))
    );
    let detail = problem["detail"].as_str().map(str::to_owned);
    let fields = problem["errors"].as_array().into_iter().flatten();
    let fields = fields.map(|field| {
        let text = |member: &str| field[member].as_str().expect("a text").to_owned();
        format!("{}: {}", text("field"), text("detail"))
    });
    let sentences: Vec<_> = detail.into_iter().chain(fields).collect();
    assert_eq!(
        sentences,
        english[1..],
        "problem details say what the envelope says"
    );
}
