//! Reads JSON objects and query strings member by member, and reports every error at once.

use std::borrow::Cow;
use std::fmt;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::code::Code;
use crate::error::ApiError;
use crate::text::Text;

/// The most problems that an answer reports. A body of a thousand unknown members does not get a longer one.
const MAX_PROBLEMS: usize = 50;
/// The most characters of an unknown member name that are sent back.
const MAX_NAME: usize = 64;

/// The members of one object. Each parser takes the member that it knows. The members that are left at the end are
/// unknown.
#[derive(Debug, Default)]
pub struct Fields {
    members: Map<String, Value>,
    problems: Vec<(Cow<'static, str>, Text)>,
}

/// A JSON object, and the names that it contains twice.
struct Object {
    members: Map<String, Value>,
    twice: Vec<String>,
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut object = Object {
                    members: Map::new(),
                    twice: Vec::new(),
                };
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if object.members.contains_key(&name) {
                        object.twice.push(name);
                    } else {
                        object.members.insert(name, value);
                    }
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

impl Fields {
    /// The members of a JSON object.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let bad = |problem| ApiError::new(Code::ValidationFailed).field("body", problem);
        let Object { members, twice } =
            serde_json::from_slice(body).map_err(|error| match error.classify() {
                serde_json::error::Category::Data => bad(Text::new("NOT_AN_OBJECT")),
                _ => bad(Text::new("NOT_JSON")
                    .with("line", error.line())
                    .with("column", error.column())),
            })?;
        let mut fields = Self {
            members,
            problems: Vec::new(),
        };
        for name in twice {
            fields.problem(shown(&name), Text::new("DUPLICATE_FIELD"));
        }
        Ok(fields)
    }

    /// The parameters of a query string; each value is a JSON string.
    pub fn from_query(query: Option<&str>) -> Self {
        let mut fields = Self::default();
        for pair in query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (decode(name), decode(value)) {
                (Some(name), _) if fields.members.contains_key(&name) => {
                    fields.problem(shown(&name), Text::new("DUPLICATE_FIELD"));
                }
                (Some(name), Some(value)) => {
                    drop(fields.members.insert(name, Value::String(value)));
                }
                (name, _) => {
                    fields.problem(shown(name.as_deref().unwrap_or("?")), Text::new("NOT_UTF8"));
                }
            }
        }
        fields
    }

    /// Takes a required member. `null` counts as absent.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&Value) -> Result<T, Text>,
    ) -> Option<T> {
        match self.members.get(name) {
            None | Some(Value::Null) => {
                self.members.shift_remove(name);
                if !self.has_problem(name) {
                    self.problem(name, Text::new("REQUIRED"));
                }
                None
            }
            Some(_) => self.optional(name, parse),
        }
    }

    /// Takes an optional member. `null` counts as absent.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&Value) -> Result<T, Text>,
    ) -> Option<T> {
        match self.members.shift_remove(name) {
            None | Some(Value::Null) => None,
            Some(value) => parse(&value)
                .map_err(|problem| self.problem(name, problem))
                .ok(),
        }
    }

    /// Reports a problem.
    pub fn problem(&mut self, name: impl Into<Cow<'static, str>>, problem: Text) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push((name.into(), problem));
        }
    }

    /// Whether a problem of a member was reported.
    pub fn has_problem(&self, name: &str) -> bool {
        self.problems.iter().any(|(reported, _)| reported == name)
    }

    /// Whether any problem was reported.
    pub fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// `Ok` if every member was taken and none was bad.
    pub fn finish(mut self) -> Result<(), ApiError> {
        for (name, _) in std::mem::take(&mut self.members) {
            self.problem(shown(&name), Text::new("UNKNOWN_FIELD"));
        }
        if self.problems.is_empty() {
            return Ok(());
        }
        let error = ApiError::new(Code::ValidationFailed);
        Err(self
            .problems
            .into_iter()
            .fold(error, |error, (name, problem)| error.field(name, problem)))
    }

    /// The value that was read from the members, if every member was taken and none was bad.
    pub fn finish_with<T>(self, value: Option<T>) -> Result<T, ApiError> {
        self.finish()?;
        Ok(value.expect("a required member that is missing or bad was reported"))
    }
}

/// An unknown member name in a form that can be sent back.
fn shown(name: &str) -> String {
    name.chars()
        .filter(|c| !c.is_control())
        .take(MAX_NAME)
        .collect()
}

/// `application/x-www-form-urlencoded`.
fn decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'+' => decoded.push(b' '),
            b'%' => {
                let mut byte = [0];
                hex::decode_to_slice(bytes.get(at + 1..at + 3)?, &mut byte).ok()?;
                decoded.push(byte[0]);
                at += 2;
            }
            byte => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8(decoded).ok()
}

/// A whole number in ASCII digits, without a sign.
pub fn whole_number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// A value that must be a string.
pub fn string(value: &Value) -> Result<&str, Text> {
    value
        .as_str()
        .ok_or_else(|| Text::new("WRONG_TYPE").with("expected", "string"))
}

/// A value that must be true or false.
pub fn boolean(value: &Value) -> Result<bool, Text> {
    value
        .as_bool()
        .ok_or_else(|| Text::new("WRONG_TYPE").with("expected", "boolean"))
}

/// The bytes of a body with a JSON media type, up to the limit of the route.
pub struct JsonBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let media_type = request
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let essence = media_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        if essence != "application/json"
            && !(essence.starts_with("application/") && essence.ends_with("+json"))
        {
            return Err(ApiError::new(Code::UnsupportedMediaType));
        }
        let bytes =
            Bytes::from_request(request, state)
                .await
                .map_err(|rejection| match rejection.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(Code::BodyTooLarge),
                    // The connection broke, or the body was not what its framing promised.
                    _ => ApiError::new(Code::ValidationFailed),
                })?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Language;
    use proptest::prelude::*;

    fn sentences(error: &ApiError) -> Vec<String> {
        error.sentences(Language::En)
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let mut fields = Fields::parse(br#"{"a":1,"b":null,"d":"x","d":"y","e":[]}"#).unwrap();
        fields.required("a", |value| string(value).map(str::to_owned));
        fields.required("b", |value| string(value).map(str::to_owned));
        fields.optional("c", |value| string(value).map(str::to_owned));
        assert_eq!(
            fields
                .optional("d", |value| string(value).map(str::to_owned))
                .as_deref(),
            Some("x")
        );
        let error = fields.finish().unwrap_err();
        assert_eq!(
            sentences(&error),
            [
                "Validation failed",
                "d: is given more than once",
                "a: must be of type string",
                "b: is required",
                "e: is not a known field",
            ]
        );
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for (body, sentence) in [
            ("", "body: is not valid JSON (line 1, column 0)"),
            ("{", "body: is not valid JSON (line 1, column 1)"),
            ("[1]", "body: must be a JSON object"),
            ("{} x", "body: is not valid JSON (line 1, column 4)"),
        ] {
            assert_eq!(
                sentences(&Fields::parse(body.as_bytes()).unwrap_err())[1],
                sentence,
                "{body}"
            );
        }
        let deep = "{\"a\":".repeat(100_000);
        assert!(Fields::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn a_thousand_unknown_members_get_a_short_answer() {
        let members: Vec<_> = (0..1000)
            .map(|i| format!("\"{}{i}\":0", "x".repeat(200)))
            .collect();
        let error = Fields::parse(format!("{{{}}}", members.join(",")).as_bytes())
            .unwrap()
            .finish()
            .unwrap_err();
        let sentences = sentences(&error);
        assert_eq!(sentences.len(), 51);
        assert!(sentences.iter().all(|sentence| sentence.len() < 120));
    }

    #[test]
    fn a_query_string_is_decoded_and_checked() {
        let mut fields = Fields::from_query(Some("q=a+b%C4%B1&page=2&page=3&bad=%zz&empty"));
        assert_eq!(
            fields
                .optional("q", |value| string(value).map(str::to_owned))
                .as_deref(),
            Some("a bı")
        );
        assert_eq!(
            fields
                .optional("empty", |value| string(value).map(str::to_owned))
                .as_deref(),
            Some("")
        );
        fields.optional("page", |value| string(value).map(str::to_owned));
        let error = fields.finish().unwrap_err();
        assert_eq!(
            sentences(&error)[1..],
            [
                "page: is given more than once",
                "bad: is not valid percent-encoded UTF-8"
            ]
        );
    }

    proptest! {
        #[test]
        fn any_body_is_members_or_an_error(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(fields) = Fields::parse(&body) {
                let _ = fields.finish();
            }
        }

        #[test]
        fn any_query_is_members_or_an_error(query in ".{0,200}") {
            let _ = Fields::from_query(Some(&query)).finish();
        }
    }
}
