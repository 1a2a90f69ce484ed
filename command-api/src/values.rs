//! Parses client input into values. Each parser returns a value that needs no further check, or the
//! reason for the refusal. No other code parses input.

use std::ops::RangeInclusive;

use events::event::{Consents, Profile};
use events::{Time, UserId};
use http_kit::fields::{self, Fields, string};
use http_kit::text::Text;
use http_kit::username::{InvalidUsername, Username};
use jiff::civil::Date;
use serde_json::Value;

use kinds::{Kind, Label, listed, set};

mod kinds;
pub(crate) mod schemas;

/// A profile whose members all satisfy the rules.
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

/// A new user.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the published API say it all")]
pub struct Registration {
    pub username: Username,
    pub profile: NewProfile,
    pub country_code: Option<String>,
    pub phone_number: Option<String>,
    pub consents: Consents,
    pub is_registration_complete: bool,
    pub roles: Vec<String>,
    pub last_login: Option<Time>,
}

const ROLES: [&str; 4] = ["user", "service", "auditor", "admin"];
const COUNTRY_CODE_DIGITS: RangeInclusive<usize> = 1..=3;
const PHONE_NUMBER_DIGITS: RangeInclusive<usize> = 4..=14;

macro_rules! read {
    (
        required { $($(#[doc = $about:literal])* $member:ident $json:literal: $kind:ident,)* }
        optional { $($(#[doc = $about_o:literal])* $member_o:ident $json_o:literal: $type:ty = $kind_o:ident,)* }
    ) => {
        /// Parses the members of a profile. Returns `None` when one is bad; [`Fields`] then
        /// contains every bad one.
        pub fn profile(fields: &mut Fields, today: Date) -> Option<NewProfile> {
            // Every member is parsed before any is missed, so that every problem is reported.
            $(let $member = fields.required($json, |value| kinds::$kind::parse(value, today));)*
            $(let $member_o: $type = fields
                .optional($json_o, |value| kinds::$kind_o::parse(value, today))
                .unwrap_or_default();)*
            Some(NewProfile(Profile {
                $($member: $member?,)*
                $($member_o,)*
            }))
        }
    };
}
events::profile_members!(read);

/// Parses a registration: the body of `POST /api/v1/users`, or a line of an import.
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
        // One without the other is not a complete number. A bad one has already been reported.
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
    let mut version = |name| {
        let label = fields.optional(name, |value| Label::parse(value, today));
        label.flatten()
    };
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

/// Parses a username.
pub fn username(text: &str) -> Result<Username, Text> {
    Username::parse(text).map_err(|invalid| match invalid {
        InvalidUsername::TooShort => Text::new("TOO_SHORT").with("min", Username::MIN),
        InvalidUsername::TooLong => Text::new("TOO_LONG").with("max", Username::MAX),
        InvalidUsername::Characters { suggestion } if Username::parse(&suggestion).is_ok() => {
            Text::new("USERNAME_CHARACTERS").with("suggestion", suggestion)
        }
        // The remaining letters of `李小龍` or `ädmin` would be refused too.
        InvalidUsername::Characters { .. } => Text::new("USERNAME_LETTERS"),
        InvalidUsername::Shape => Text::new("USERNAME_SHAPE"),
        InvalidUsername::Reserved => Text::new("USERNAME_RESERVED"),
    })
}

/// Parses the identifier of a user.
pub fn user_id(text: &str) -> Result<UserId, Text> {
    text.parse().map_err(|_| Text::new("BAD_ID"))
}

fn roles(value: &Value) -> Result<Vec<String>, Text> {
    set(value, ROLES.len(), |text| listed(text, &ROLES))
}

/// The maximum number of digits of an E.164 number, including the country code (ITU-T E.164, 6.1).
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
