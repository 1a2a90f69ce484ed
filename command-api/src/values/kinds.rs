//! The kinds of profile members: for each one the parser, the limits and the description.
//!
//! [`profile_members!`](events::profile_members) says which member is of which kind.

use std::ops::RangeInclusive;

use email_address::{EmailAddress, Options};
use http_kit::fields::string;
use http_kit::hidden::{BASIC, JOINERS, brackets, is_hidden};
use http_kit::profile::EXPERTISE;
use http_kit::text::Text;
use jiff::civil::Date;
use serde_json::{Value, json};
use unicode_normalization::UnicodeNormalization as _;

/// The rules for one kind of member. `Value` is the stored form.
pub(crate) trait Kind {
    type Value;

    /// Reads what a client sent. `today` is the day of the request.
    fn parse(value: &Value, today: Date) -> Result<Self::Value, Text>;

    /// The JSON Schema of the values that `parse` takes, as far as a schema can say it. A
    /// `description` in it says what the schema cannot.
    fn schema() -> Value;
}

/// A kind whose values are texts.
trait TextKind {
    fn parse(text: &str, today: Date) -> Result<String, Text>;
    fn schema() -> Value;
}

macro_rules! required {
    ($($kind:ident)*) => {$(
        impl Kind for $kind {
            type Value = String;

            fn parse(value: &Value, today: Date) -> Result<String, Text> {
                <Self as TextKind>::parse(string(value)?, today)
            }

            fn schema() -> Value {
                <Self as TextKind>::schema()
            }
        }
    )*};
}

macro_rules! optional {
    ($($kind:ident)*) => {$(
        impl Kind for $kind {
            type Value = Option<String>;

            fn parse(value: &Value, today: Date) -> Result<Option<String>, Text> {
                let text = <Self as TextKind>::parse(string(value)?, today)?;
                // Only kinds that allow an empty text get here with one: it clears the member.
                Ok(Some(text).filter(|text| !text.is_empty()))
            }

            fn schema() -> Value {
                or_null(<Self as TextKind>::schema())
            }
        }
    )*};
}

required! { Name }
optional! { Availability Biography BirthDate Email Expertise Gender Handle Label }

/// The schema that also takes `null`, which is the same as absent.
fn or_null(mut schema: Value) -> Value {
    schema["type"] = json!([schema["type"], "null"]);
    if let Some(allowed) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        allowed.push(Value::Null);
    }
    schema
}

/// The name or surname of a person.
pub(crate) struct Name;

impl Name {
    const MAX: usize = 50;
}

impl TextKind for Name {
    fn parse(text: &str, _: Date) -> Result<String, Text> {
        visible(text, &[])?;
        bounded(text.trim(), 1, Self::MAX)
    }

    fn schema() -> Value {
        let hidden = brackets(BASIC, &[]);
        json!({
            "type": "string",
            "description": "Any script, without control, invisible or direction-changing characters. Spaces around the name are removed.",
            "minLength": 1,
            "maxLength": Self::MAX,
            "pattern": format!(r"^[^{hidden}]*[^{hidden}\s][^{hidden}]*$"),
        })
    }
}

/// A few words about a person.
pub(crate) struct Biography;

impl Biography {
    const MAX: usize = 500;
    /// Line breaks structure a biography, and joiners are part of emoji.
    const ALLOWED: [char; 5] = ['\n', '\r', '\t', JOINERS[0], JOINERS[1]];
}

impl TextKind for Biography {
    fn parse(text: &str, _: Date) -> Result<String, Text> {
        visible(text, &Self::ALLOWED)?;
        bounded(text.trim(), 0, Self::MAX)
    }

    fn schema() -> Value {
        json!({
            "type": "string",
            "description": "An empty text clears it.",
            "maxLength": Self::MAX,
            "pattern": format!("^[^{}]*$", brackets(BASIC, &Self::ALLOWED)),
        })
    }
}

/// A short text, such as the version of a document that users agree to.
pub(crate) struct Label;

impl Label {
    const MAX: usize = 32;
}

impl TextKind for Label {
    fn parse(text: &str, _: Date) -> Result<String, Text> {
        visible(text, &[])?;
        bounded(text, 1, Self::MAX)
    }

    fn schema() -> Value {
        json!({
            "type": "string",
            "minLength": 1,
            "maxLength": Self::MAX,
            "pattern": format!("^[^{}]*$", brackets(BASIC, &[])),
        })
    }
}

/// One of a list of words.
macro_rules! one_of {
    ($($(#[doc = $doc:literal])* $kind:ident: $allowed:expr;)*) => {$(
        $(#[doc = $doc])*
        pub(crate) struct $kind;

        impl TextKind for $kind {
            fn parse(text: &str, _: Date) -> Result<String, Text> {
                listed(text, &$allowed)
            }

            fn schema() -> Value {
                json!({"type": "string", "enum": $allowed})
            }
        }
    )*};
}

one_of! {
    /// Whether the user can be reached.
    Availability: ["available", "busy", "away", "offline"];
    /// A gender.
    Gender: ["male", "female", "other", "prefer_not_to_say"];
    /// A profession of the published page.
    Expertise: EXPERTISE;
}

/// A text that is in a list.
pub(super) fn listed(text: &str, allowed: &[&str]) -> Result<String, Text> {
    match allowed.iter().find(|one| **one == text) {
        Some(one) => Ok((*one).to_owned()),
        None => Err(Text::new("NOT_ALLOWED").with("allowed", allowed.join(", "))),
    }
}

/// A date of birth, stored as `YYYY-MM-DD`.
pub(crate) struct BirthDate;

impl BirthDate {
    const MIN_AGE: i16 = 13;
    /// The first accepted date.
    const FIRST: Date = jiff::civil::date(1900, 1, 1);
}

impl TextKind for BirthDate {
    /// The date of a date-time is stored as written: midnight in one time zone is the day before in
    /// another, and a birthday does not move.
    fn parse(text: &str, today: Date) -> Result<String, Text> {
        let bad = || Text::new("BAD_DATE");
        if text.len() > 40 {
            return Err(bad());
        }
        let (date, time) = text.split_at_checked(10).ok_or_else(bad)?;
        let shaped = date.bytes().enumerate().all(|(i, b)| {
            if i == 4 || i == 7 {
                b == b'-'
            } else {
                b.is_ascii_digit()
            }
        });
        let born: Date = date.parse().ok().filter(|_| shaped).ok_or_else(bad)?;
        if !time.is_empty()
            && text.parse::<jiff::Timestamp>().is_err()
            && text.parse::<jiff::civil::DateTime>().is_err()
        {
            return Err(bad());
        }
        if born < Self::FIRST || born > today {
            return Err(Text::new("DATE_OUT_OF_RANGE")
                .with("min", Self::FIRST)
                .with("max", today));
        }
        match http_kit::profile::age(date, today) {
            Some(age) if age >= Self::MIN_AGE => Ok(date.to_owned()),
            _ => Err(Text::new("TOO_YOUNG").with("min", Self::MIN_AGE)),
        }
    }

    fn schema() -> Value {
        let (first, age) = (Self::FIRST, Self::MIN_AGE);
        json!({
            "type": "string",
            "description": format!(
                "A date-time is also accepted; its date is stored as written. Not before {first}, and at least {age} years ago. Only the user sees it."
            ),
            "pattern": "^(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])(T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?)?$",
        })
    }
}

/// A set of short words.
pub(crate) struct Interests;

impl Interests {
    const MAX: usize = 20;
    /// Characters of one word.
    const WORD: RangeInclusive<usize> = 2..=32;
}

impl Kind for Interests {
    type Value = Vec<String>;

    fn parse(value: &Value, _: Date) -> Result<Vec<String>, Text> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        set(value, Self::MAX, |text| {
            if Self::WORD.contains(&text.len()) && text.bytes().all(allowed) {
                Ok(text.to_owned())
            } else {
                Err(Text::new("BAD_SLUG"))
            }
        })
    }

    fn schema() -> Value {
        json!({
            "type": ["array", "null"],
            "description": "A set: a repeated item counts once, and the order is kept.",
            "items": {
                "type": "string",
                "pattern": format!("^[a-z0-9-]{{{},{}}}$", Self::WORD.start(), Self::WORD.end()),
            },
            "maxItems": Self::MAX,
        })
    }
}

/// A list as a set: duplicates fold into the first, the order stays.
pub(super) fn set(
    value: &Value,
    max: usize,
    parse: impl Fn(&str) -> Result<String, Text>,
) -> Result<Vec<String>, Text> {
    let list = value
        .as_array()
        .ok_or_else(|| Text::new("WRONG_TYPE").with("expected", "array"))?;
    let mut set: Vec<String> = Vec::new();
    for item in list {
        let item = parse(string(item)?)?;
        if !set.contains(&item) {
            if set.len() == max {
                return Err(Text::new("TOO_MANY").with("max", max));
            }
            set.push(item);
        }
    }
    Ok(set)
}

/// One e-mail address.
pub(crate) struct Email;

impl Email {
    /// Bytes (RFC 5321, 4.5.3.1.3, less the angle brackets).
    const MAX: usize = 254;
}

impl TextKind for Email {
    fn parse(text: &str, _: Date) -> Result<String, Text> {
        let options = Options::default()
            .without_display_text()
            .without_domain_literal()
            .with_required_tld();
        if text.len() > Self::MAX {
            return Err(Text::new("TOO_LONG").with("max", Self::MAX));
        }
        // RFC 6531 allows every character beyond ASCII, invisible ones included.
        if text.chars().any(is_hidden) {
            return Err(Text::new("BAD_EMAIL"));
        }
        EmailAddress::parse_with_options(text, options)
            .map(|address| address.to_string())
            .map_err(|_| Text::new("BAD_EMAIL"))
    }

    fn schema() -> Value {
        json!({
            "type": "string",
            "format": "email",
            "description": "One address. Only the user sees it.",
            "maxLength": Self::MAX,
            "pattern": r"@[^@]+\.[^@]+$",
        })
    }
}

/// The name of an account in a social network.
pub(crate) struct Handle;

impl Handle {
    const MAX: usize = 50;
}

impl TextKind for Handle {
    fn parse(text: &str, _: Date) -> Result<String, Text> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if (1..=Self::MAX).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(text.to_owned())
        } else {
            Err(Text::new("BAD_HANDLE"))
        }
    }

    fn schema() -> Value {
        json!({
            "type": "string",
            "description": "A handle, without `@`.",
            "pattern": format!("^[A-Za-z0-9._-]{{1,{}}}$", Self::MAX),
        })
    }
}

/// Refuses characters that let one text look like another.
fn visible(text: &str, except: &[char]) -> Result<(), Text> {
    if text.chars().any(|c| is_hidden(c) && !except.contains(&c)) {
        return Err(Text::new("BAD_CHARACTERS"));
    }
    Ok(())
}

fn bounded(text: &str, min: usize, max: usize) -> Result<String, Text> {
    // Composing never makes a text longer than three times its characters, so what is refused unread
    // could not have become short enough.
    if text.chars().nth(max * 4).is_some() {
        return Err(Text::new("TOO_LONG").with("max", max));
    }
    // ASCII is composed.
    let text: String = if text.is_ascii() {
        text.to_owned()
    } else {
        text.nfc().collect()
    };
    match text.chars().count() {
        count if count < min => Err(Text::new("TOO_SHORT").with("min", min)),
        count if count > max => Err(Text::new("TOO_LONG").with("max", max)),
        _ => Ok(text),
    }
}
