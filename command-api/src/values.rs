//! Raw input becomes values here, and nowhere else: each parser takes what a client sent and gives a
//! value that needs no second check, or the reason why not.

use std::ops::RangeInclusive;

use email_address::{EmailAddress, Options};
use events::event::{Consents, Profile};
use events::{Time, UserId};
use http_kit::fields::{self, Fields};
use http_kit::hidden::{JOINERS, is_hidden};
use http_kit::profile::EXPERTISE;
use http_kit::text::Text;
use http_kit::username::InvalidUsername;
use http_kit::username::Username;
use jiff::civil::Date;
use serde_json::Value;
use unicode_normalization::UnicodeNormalization as _;

use crate::user::Registration;

pub(crate) mod described;

/// A profile whose members all keep the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProfile(Profile);

impl NewProfile {
    /// The members.
    pub fn into_inner(self) -> Profile {
        self.0
    }

    /// The members.
    pub fn as_inner(&self) -> &Profile {
        &self.0
    }
}

const AVAILABILITY: [&str; 4] = ["available", "busy", "away", "offline"];
const GENDERS: [&str; 4] = ["male", "female", "other", "prefer_not_to_say"];
const ROLES: [&str; 4] = ["user", "service", "auditor", "admin"];
const MIN_AGE: i16 = 13;
/// The first day on which somebody was born.
const FIRST_BIRTH_DATE: Date = jiff::civil::date(1900, 1, 1);
const MAX_INTERESTS: usize = 20;
/// Characters of an interest.
const INTEREST: RangeInclusive<usize> = 2..=32;
/// Characters of a name or surname at the most.
const MAX_NAME: usize = 50;
const MAX_BIO: usize = 500;
/// Characters of the version of a text that users agree to at the most.
const MAX_LABEL: usize = 32;
/// Bytes of an e-mail address at the most (RFC 5321, 4.5.3.1.3, less the angle brackets).
const MAX_EMAIL: usize = 254;
const MAX_HANDLE: usize = 50;
const COUNTRY_CODE_DIGITS: RangeInclusive<usize> = 1..=3;
const PHONE_NUMBER_DIGITS: RangeInclusive<usize> = 4..=14;

/// Reads the members of a profile. `None` when one is bad; [`Fields`] then knows each that is.
pub fn profile(fields: &mut Fields, today: Date) -> Option<NewProfile> {
    let name = fields.required("name", |value| name(string(value)?));
    let surname = fields.required("surname", |value| self::name(string(value)?));
    let profile = Profile {
        availability_status: fields.optional("availabilityStatus", |value| {
            one_of(string(value)?, &AVAILABILITY)
        }),
        gender: fields.optional("gender", |value| one_of(string(value)?, &GENDERS)),
        birth_date: fields.optional("birthDate", |value| birth_date(string(value)?, today)),
        interests: fields.optional("interests", interests).unwrap_or_default(),
        expertise: fields.optional("expertise", |value| one_of(string(value)?, &EXPERTISE)),
        email: fields.optional("email", |value| email(string(value)?)),
        // An empty text is how a form clears the member.
        bio: fields
            .optional("bio", |value| bio(string(value)?))
            .filter(|bio| !bio.is_empty()),
        instagram: fields.optional("instagram", |value| handle(string(value)?)),
        tiktok: fields.optional("tiktok", |value| handle(string(value)?)),
        x: fields.optional("x", |value| handle(string(value)?)),
        snapchat: fields.optional("snapchat", |value| handle(string(value)?)),
        facebook: fields.optional("facebook", |value| handle(string(value)?)),
        ..Profile::default()
    };
    Some(NewProfile(Profile {
        name: name?,
        surname: surname?,
        ..profile
    }))
}

/// Reads a registration: the body of `POST /api/v1/users`, and a line of an import.
pub fn registration(fields: &mut Fields, today: Date) -> Option<(Option<UserId>, Registration)> {
    let user_id = fields.optional("_id", |value| user_id(string(value)?));
    let username = fields.required("username", |value| username(string(value)?));
    let profile = profile(fields, today);
    let country_code = fields.optional("countryCode", |value| country_code(string(value)?));
    let phone_number = fields.optional("phoneNumber", |value| phone_number(string(value)?));
    match (&country_code, &phone_number) {
        (Some(country), Some(number)) if country.len() + number.len() > MAX_E164_DIGITS => {
            fields.problem("phoneNumber", Text::new("BAD_PHONE_NUMBER"));
        }
        // One without the other is no number; a bad one has been reported already.
        (Some(_), None) if !fields.has_problem("phoneNumber") => {
            fields.problem("phoneNumber", Text::new("REQUIRED"));
        }
        (None, Some(_)) if !fields.has_problem("countryCode") => {
            fields.problem("countryCode", Text::new("REQUIRED"));
        }
        _ => {}
    }
    let mut flag = |name| fields.optional(name, fields::boolean);
    let privacy_policy_accepted = flag("privacyPolicyAccepted").unwrap_or_default();
    let terms_of_use_accepted = flag("termsOfUseAccepted").unwrap_or_default();
    let consent_form_accepted = flag("consentFormAccepted").unwrap_or_default();
    let is_registration_complete = flag("isRegistrationComplete").unwrap_or(true);
    let mut version = |name| fields.optional(name, |value| label(string(value)?));
    let consents = Consents {
        privacy_policy_accepted,
        privacy_policy_version: version("privacyPolicyVersion"),
        terms_of_use_accepted,
        terms_of_use_version: version("termsOfUseVersion"),
        consent_form_accepted,
        consent_form_version: version("consentFormVersion"),
    };
    let roles = fields
        .optional("roles", roles)
        .unwrap_or_else(|| vec!["user".to_owned()]);
    let last_login = fields.optional("lastLogin", |value| time(string(value)?));
    let registration = Registration {
        username: username?,
        profile: profile?,
        country_code,
        phone_number,
        consents,
        is_registration_complete,
        roles,
        last_login,
    };
    Some((user_id, registration))
}

/// Reads a username.
pub fn username(text: &str) -> Result<Username, Text> {
    Username::parse(text).map_err(|invalid| match invalid {
        InvalidUsername::TooShort => Text::new("TOO_SHORT").with("min", Username::MIN),
        InvalidUsername::TooLong => Text::new("TOO_LONG").with("max", Username::MAX),
        InvalidUsername::Characters { suggestion } if Username::parse(&suggestion).is_ok() => {
            Text::new("USERNAME_CHARACTERS").with("suggestion", suggestion)
        }
        // What is left of `李小龍` or `ädmin` would be refused, too.
        InvalidUsername::Characters { .. } => Text::new("USERNAME_LETTERS"),
        InvalidUsername::Shape => Text::new("USERNAME_SHAPE"),
        InvalidUsername::Reserved => Text::new("USERNAME_RESERVED"),
    })
}

/// Reads the identifier of a user.
pub fn user_id(text: &str) -> Result<UserId, Text> {
    text.parse().map_err(|_| Text::new("BAD_ID"))
}

fn string(value: &Value) -> Result<&str, Text> {
    fields::string(value)
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

fn name(text: &str) -> Result<String, Text> {
    if text.chars().any(is_hidden) {
        return Err(Text::new("BAD_CHARACTERS"));
    }
    bounded(text.trim(), 1, MAX_NAME)
}

/// Line breaks are how a biography is written, and joiners are how emoji are.
const ALLOWED_IN_BIO: [char; 5] = ['\n', '\r', '\t', JOINERS[0], JOINERS[1]];

fn bio(text: &str) -> Result<String, Text> {
    if text
        .chars()
        .any(|c| is_hidden(c) && !ALLOWED_IN_BIO.contains(&c))
    {
        return Err(Text::new("BAD_CHARACTERS"));
    }
    bounded(text.trim(), 0, MAX_BIO)
}

fn label(text: &str) -> Result<String, Text> {
    if text.chars().any(is_hidden) {
        return Err(Text::new("BAD_CHARACTERS"));
    }
    bounded(text, 1, MAX_LABEL)
}

fn one_of(text: &str, allowed: &[&str]) -> Result<String, Text> {
    match allowed.iter().find(|one| **one == text) {
        Some(one) => Ok((*one).to_owned()),
        None => Err(Text::new("NOT_ALLOWED").with("allowed", allowed.join(", "))),
    }
}

/// `YYYY-MM-DD`, or a date-time of which the date is kept as it is written: midnight in one time zone is
/// the day before in another, and a birthday does not move.
fn birth_date(text: &str, today: Date) -> Result<String, Text> {
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
    if born < FIRST_BIRTH_DATE || born > today {
        return Err(Text::new("DATE_OUT_OF_RANGE")
            .with("min", FIRST_BIRTH_DATE)
            .with("max", today));
    }
    match http_kit::profile::age(date, today) {
        Some(age) if age >= MIN_AGE => Ok(date.to_owned()),
        _ => Err(Text::new("TOO_YOUNG").with("min", MIN_AGE)),
    }
}

fn interests(value: &Value) -> Result<Vec<String>, Text> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    set(value, MAX_INTERESTS, |text| {
        if INTEREST.contains(&text.len()) && text.bytes().all(allowed) {
            Ok(text.to_owned())
        } else {
            Err(Text::new("BAD_SLUG"))
        }
    })
}

fn roles(value: &Value) -> Result<Vec<String>, Text> {
    set(value, ROLES.len(), |text| one_of(text, &ROLES))
}

/// A list as a set: duplicates fold into the first, the order stays.
fn set(
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

fn email(text: &str) -> Result<String, Text> {
    let options = Options::default()
        .without_display_text()
        .without_domain_literal()
        .with_required_tld();
    if text.len() > MAX_EMAIL {
        return Err(Text::new("TOO_LONG").with("max", MAX_EMAIL));
    }
    // RFC 6531 allows any character beyond ASCII, also those that nobody sees.
    if text.chars().any(is_hidden) {
        return Err(Text::new("BAD_EMAIL"));
    }
    EmailAddress::parse_with_options(text, options)
        .map(|address| address.to_string())
        .map_err(|_| Text::new("BAD_EMAIL"))
}

fn handle(text: &str) -> Result<String, Text> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if (1..=MAX_HANDLE).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(Text::new("BAD_HANDLE"))
    }
}

/// A whole number in E.164 has at most so many digits, the country code among them (ITU-T E.164, 6.1).
const MAX_E164_DIGITS: usize = 15;

fn digits(text: &str, lengths: RangeInclusive<usize>) -> Option<String> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    (lengths.contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.to_owned())
}

fn country_code(text: &str) -> Result<String, Text> {
    digits(text, COUNTRY_CODE_DIGITS)
        .filter(|code| !code.starts_with('0'))
        .ok_or_else(|| Text::new("BAD_COUNTRY_CODE"))
}

fn phone_number(text: &str) -> Result<String, Text> {
    digits(text, PHONE_NUMBER_DIGITS).ok_or_else(|| Text::new("BAD_PHONE_NUMBER"))
}

fn time(text: &str) -> Result<Time, Text> {
    text.parse().map_err(|_| Text::new("BAD_DATE"))
}

#[cfg(test)]
mod tests;
