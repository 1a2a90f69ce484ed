//! The OpenAPI schemas of the parsed bodies. A test compares schemas and parsers. A schema cannot
//! express the minimum age, the reserved usernames, and texts before they are trimmed and composed;
//! the descriptions do.

use http_kit::openapi::schema;
use http_kit::username::Username;
use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::kinds::{self, Kind, Label};
use super::{COUNTRY_CODE_DIGITS, PHONE_NUMBER_DIGITS, ROLES};

/// The members that [`super::profile`] reads.
pub(crate) struct ProfileBody;

/// The members that [`super::registration`] reads.
pub(crate) struct RegistrationBody;

/// The member of a username change.
pub(crate) struct UsernameBody;

impl PartialSchema for ProfileBody {
    fn schema() -> RefOr<Schema> {
        let about =
            "The whole new profile: an optional member that is absent or `null` is cleared.";
        object(about, &["name", "surname"], &profile())
    }
}

impl PartialSchema for RegistrationBody {
    fn schema() -> RefOr<Schema> {
        let about =
            "A new user. `countryCode` and `phoneNumber` come together, with at most 15 digits.";
        object(about, &["username", "name", "surname"], &registration())
    }
}

impl PartialSchema for UsernameBody {
    fn schema() -> RefOr<Schema> {
        let member = Map::from_iter([("newUsername".to_owned(), username())]);
        object("The new username.", &["newUsername"], &member)
    }
}

impl ToSchema for ProfileBody {}
impl ToSchema for RegistrationBody {}
impl ToSchema for UsernameBody {}

/// An object schema. Unknown members are refused.
fn object(about: &str, required: &[&str], members: &Map<String, Value>) -> RefOr<Schema> {
    schema(json!({
        "type": "object",
        "description": about,
        "required": required,
        "properties": members,
        "additionalProperties": false,
    }))
}

macro_rules! describe {
    (
        required { $($(#[doc = $about:literal])* $member:ident $json:literal: $kind:ident,)* }
        optional { $($(#[doc = $about_o:literal])* $member_o:ident $json_o:literal: $type:ty = $kind_o:ident,)* }
    ) => {
        fn profile() -> Map<String, Value> {
            let example = serde_json::to_value(http_kit::profile::example().profile);
            let example = example.expect("a profile is JSON");
            let member = |name: &str, about: &[&str], schema| {
                (name.to_owned(), describe(&example[name], about, schema))
            };
            Map::from_iter([
                $(member($json, &[$($about),*], kinds::$kind::schema()),)*
                $(member($json_o, &[$($about_o),*], kinds::$kind_o::schema()),)*
            ])
        }
    };
}
events::profile_members!(describe);

/// The schema of a kind as the schema of a member: the description of the member, then that of the
/// kind.
fn describe(example: &Value, about: &[&str], mut schema: Value) -> Value {
    let about = about.concat();
    let rules = schema["description"].as_str();
    let paragraphs: Vec<_> = [Some(about.trim()), rules].into_iter().flatten().collect();
    schema["description"] = paragraphs.join("\n\n").into();
    schema["examples"] = json!([example]);
    schema
}

fn registration() -> Map<String, Value> {
    let mut all = members(json!({
        "_id": {
            "type": ["string", "null"],
            "description": "The id of the user. Without it, the service makes one.",
            "pattern": "^[0-9a-f]{24}$",
            "examples": ["507f1f77bcf86cd799439011"],
        },
        "username": username(),
    }));
    all.extend(profile());
    all.extend(members(json!({
        "countryCode": {
            "type": ["string", "null"],
            "description": "A country code. A `+` in front is dropped.",
            "pattern": format!(r"^\+?[1-9][0-9]{{{},{}}}$", COUNTRY_CODE_DIGITS.start() - 1, COUNTRY_CODE_DIGITS.end() - 1),
            "examples": ["90"],
        },
        "phoneNumber": {
            "type": ["string", "null"],
            "description": "The national number.",
            "pattern": format!(r"^\+?[0-9]{{{},{}}}$", PHONE_NUMBER_DIGITS.start(), PHONE_NUMBER_DIGITS.end()),
            "examples": ["5551234567"],
        },
        "privacyPolicyAccepted": flag(false),
        "privacyPolicyVersion": label("1.2.0"),
        "termsOfUseAccepted": flag(false),
        "termsOfUseVersion": label("1.1.0"),
        "consentFormAccepted": flag(false),
        "consentFormVersion": label("1.0.0"),
        "isRegistrationComplete": flag(true),
        "roles": {
            "type": ["array", "null"],
            "description": "The user's roles, as a set.",
            "items": {"type": "string", "enum": ROLES},
            "default": ["user"],
        },
        "lastLogin": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "The time of the last sign-in.",
            "examples": ["2024-01-15T09:30:00.000Z"],
        },
    })));
    all
}

fn members(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(members) => members,
        _ => unreachable!("only objects are allowed here"),
    }
}

/// The schema of a username. Upper case is lowered.
pub(crate) fn username() -> Value {
    json!({
        "type": "string",
        "description": "Letters a-z, digits, and `.` or `_` between them. Upper case is lowered; some names are reserved.",
        "minLength": Username::MIN,
        "maxLength": Username::MAX,
        "pattern": "^[A-Za-z0-9]+([._][A-Za-z0-9]+)*$",
        "examples": ["john.doe"],
    })
}

fn label(example: &str) -> Value {
    let mut schema = Label::schema();
    schema["examples"] = json!([example]);
    schema
}

fn flag(default: bool) -> Value {
    json!({"type": ["boolean", "null"], "default": default})
}

#[cfg(test)]
mod tests {
    use http_kit::fields::Fields;
    use http_kit::username::InvalidUsername;
    use proptest::prelude::*;

    use super::*;

    /// A body with the required members and one more member, together with the member that it
    /// needs.
    fn body(member: &str, value: &Value) -> Value {
        let mut body = json!({"username": "johnny", "name": "John", "surname": "Doe"});
        match member {
            "countryCode" if !value.is_null() => body["phoneNumber"] = json!("5551234567"),
            "phoneNumber" if !value.is_null() => body["countryCode"] = json!("9"),
            _ => {}
        }
        body[member] = value.clone();
        body
    }

    fn is_taken(body: &Value) -> bool {
        let mut fields = Fields::parse(body.to_string().as_bytes()).unwrap();
        super::super::registration(&mut fields, jiff::civil::date(2026, 5, 22));
        fields.finish().is_ok()
    }

    fn validator() -> jsonschema::Validator {
        let schema = serde_json::to_value(RegistrationBody::schema()).unwrap();
        let options = jsonschema::draft202012::options().should_validate_formats(true);
        options.build(&schema).unwrap()
    }

    /// Texts at the edges of every rule.
    fn texts() -> Vec<String> {
        let lengths = [
            1, 2, 3, 4, 5, 14, 15, 24, 30, 31, 32, 33, 50, 51, 254, 255, 500, 501,
        ];
        let repeated = lengths
            .iter()
            .flat_map(|length| ["a", "7", "ş"].map(|of| of.repeat(*length)));
        let others = [
            "",
            " ",
            "a b",
            "a\nb",
            "a\u{0}b",
            "a\u{202e}b",
            "a\u{200b}b",
            "a\u{200d}b",
            "\u{feff}a",
            "\u{a0}",
            "john.doe",
            "John_Doe",
            ".john",
            "john.",
            "jo..hn",
            "@john",
            "john-doe",
            "a@b.co",
            "a@b",
            "@b.co",
            "+90",
            "90",
            "090",
            "0",
            "+5551234567",
            "1995-06-15",
            "1995-06-15T00:00:00.000Z",
            "1995-06-15T25:00:00Z",
            "1995-06-15T",
            "1995-6-15",
            "15.06.1995",
            "1899-12-31",
            "1995-13-01",
            "1999-01-15T09:30:00+03:00",
            "507f1f77bcf86cd799439011",
            "507F1F77BCF86CD799439011",
            "yesterday",
        ];
        let members = registration();
        let listed = |member: &Value| member["enum"].as_array().cloned().unwrap_or_default();
        let choices = members.values().flat_map(listed);
        let choices = choices.filter_map(|one| one.as_str().map(str::to_owned));
        let others = others.into_iter().chain(ROLES).map(str::to_owned);
        repeated.chain(others).chain(choices).collect()
    }

    #[test]
    fn schemas_accept_what_the_parsers_accept() {
        let validator = validator();
        let RefOr::T(Schema::Object(object)) = RegistrationBody::schema() else {
            panic!("a body is an object")
        };
        let many = |count: usize| (0..count).map(|n| json!(format!("tag-{n}"))).collect();
        let mut values = vec![
            json!(null),
            json!(true),
            json!(false),
            json!(1),
            json!(1.5),
            json!({"a": 1}),
        ];
        values.extend([0, 1, 20, 21].map(many));
        values.extend([
            json!([1]),
            json!([null]),
            json!(["user", "king"]),
            json!(ROLES),
        ]);
        for text in texts() {
            values.push(json!([text]));
            values.push(json!(text));
        }
        for member in object
            .properties
            .keys()
            .map(String::as_str)
            .chain(["unknown"])
        {
            for value in &values {
                // The reserved names are listed in the description.
                let reserved = Err(InvalidUsername::Reserved);
                if member == "username" && value.as_str().map(Username::parse) == Some(reserved) {
                    continue;
                }
                let body = body(member, value);
                let is_valid = validator.is_valid(&body);
                assert_eq!(is_valid, is_taken(&body), "{member}: {value}");
            }
        }
        for missing in ["username", "name", "surname"] {
            let mut body = body("bio", &json!("Hi"));
            body.as_object_mut().unwrap().remove(missing);
            assert!(!validator.is_valid(&body) && !is_taken(&body), "{missing}");
        }
    }

    #[test]
    fn a_profile_and_a_username_have_the_schemas_of_a_registration() {
        let members = |schema| match schema {
            RefOr::T(Schema::Object(object)) => object.properties,
            _ => panic!("a body is an object"),
        };
        let registration = members(RegistrationBody::schema());
        for (name, member) in members(ProfileBody::schema()) {
            assert!(registration[&name] == member, "{name}");
        }
        let username = &members(UsernameBody::schema())["newUsername"];
        assert!(registration["username"] == *username);
    }

    proptest! {
        #[test]
        fn the_parsers_accept_texts_of_the_schemas(text in any::<String>(), handle in "[A-Za-z0-9._@ -]{0,55}") {
            let validator = validator();
            // A text that grows when composed is refused; a schema cannot express this.
            let composed = |text: &str| unicode_normalization::UnicodeNormalization::nfc(text).count();
            prop_assume!(composed(&text) <= text.chars().count());
            // Not every engine supports characters beyond U+FFFF in a pattern.
            prop_assume!(!text.chars().any(|c| ('\u{e0000}'..='\u{e007f}').contains(&c)));
            for member in ["name", "surname", "bio", "privacyPolicyVersion", "email", "instagram", "gender"] {
                for text in [&text, &handle] {
                    let body = body(member, &json!(text));
                    prop_assert!(!validator.is_valid(&body) || is_taken(&body), "{member}: {text:?}");
                }
            }
        }
    }
}
