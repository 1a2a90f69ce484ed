use http_kit::text::Language;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const TODAY: Date = jiff::civil::date(2026, 5, 22);

/// The parsed member of a profile, or the sentence of its refusal.
fn member(name: &str, value: &Value) -> Result<Value, String> {
    let mut body = json!({"name": "John", "surname": "Doe"});
    body[name] = value.clone();
    let mut fields = Fields::parse(body.to_string().as_bytes()).unwrap();
    let profile = profile(&mut fields, TODAY);
    match fields.finish() {
        Ok(()) => {
            let profile = serde_json::to_value(profile.unwrap().into_inner()).unwrap();
            Ok(profile.get(name).cloned().unwrap_or(Value::Null))
        }
        Err(error) => Err(error.sentences(Language::En)[1..].join("; ")),
    }
}

#[track_caller]
fn accepts(name: &str, values: &[(Value, Value)]) {
    for (given, kept) in values {
        assert_eq!(
            member(name, given).as_ref(),
            Ok(kept),
            "{name} given as {given}"
        );
    }
}

#[track_caller]
fn refuses(name: &str, values: &[Value]) {
    for value in values {
        let sentence = member(name, value).expect_err(&value.to_string());
        assert!(sentence.starts_with(&format!("{name}: ")), "{sentence}");
    }
}

/// Values that no text field accepts.
fn not_texts() -> Vec<Value> {
    vec![json!(1), json!(true), json!([]), json!({}), json!(["a"])]
}

#[test]
fn names_have_1_to_50_characters_of_any_script() {
    for name in ["name", "surname"] {
        accepts(
            name,
            &[
                (json!("Ayşe Nur"), json!("Ayşe Nur")),
                (json!("  李小龍  "), json!("李小龍")),
                (json!("O'Neil-Ünal"), json!("O'Neil-Ünal")),
                (json!("e\u{301}"), json!("é")),
                (json!("x".repeat(50)), json!("x".repeat(50))),
            ],
        );
        refuses(name, &not_texts());
        refuses(
            name,
            &[
                json!(""),
                json!("   "),
                json!(null),
                json!("x".repeat(51)),
                json!("x".repeat(100_000)),
                json!("a\nb"),
                json!("a\u{0}b"),
                json!("a\u{202e}b"),
                json!("a\u{200b}b"),
                json!("\u{2067}b"),
                json!("\u{feff}John"),
            ],
        );
    }
}

#[test]
fn a_birth_date_is_kept_as_it_is_written() {
    accepts(
        "birthDate",
        &[
            (json!("1995-06-15"), json!("1995-06-15")),
            (json!("1995-06-15T00:00:00.000Z"), json!("1995-06-15")),
            (json!("1995-06-15T23:59:59+14:00"), json!("1995-06-15")),
            (json!("1995-06-15T00:00:00-12:00"), json!("1995-06-15")),
            (json!("1995-06-15T08:30:00"), json!("1995-06-15")),
            (json!("1996-02-29"), json!("1996-02-29")),
            (json!("1900-01-01"), json!("1900-01-01")),
            // The thirteenth birthday is today.
            (json!("2013-05-22"), json!("2013-05-22")),
            (json!(null), json!(null)),
        ],
    );
    refuses("birthDate", &not_texts());
    refuses(
        "birthDate",
        &[
            json!(""),
            json!("1995-6-15"),
            json!("15.06.1995"),
            json!("1995-02-29"),
            json!("1995-06-15T25:00:00Z"),
            json!("1995-06-15 and more"),
            json!("1995-06-15T00:00:00.000Z and more"),
            json!("1899-12-31"),
            json!("2026-05-23"),
            json!("2013-05-23"),
            json!("١٩٩٥-06-15"),
            json!("x".repeat(1_000_000)),
        ],
    );
}

#[test]
fn choices_are_exactly_the_published_ones() {
    for (name, choices) in [
        (
            "availabilityStatus",
            &["available", "busy", "away", "offline"][..],
        ),
        ("gender", &["male", "female", "other", "prefer_not_to_say"]),
        ("expertise", &http_kit::profile::EXPERTISE),
    ] {
        for choice in choices {
            accepts(name, &[(json!(choice), json!(choice))]);
        }
        refuses(name, &not_texts());
        refuses(
            name,
            &[
                json!(""),
                json!("other thing"),
                json!(choices[0].to_uppercase()),
            ],
        );
    }
}

#[test]
fn interests_are_a_set_of_slugs_in_order() {
    let twenty: Vec<_> = (0..20).map(|n| format!("interest-{n}")).collect();
    let twenty_one: Vec<_> = (0..21).map(|n| format!("interest-{n}")).collect();
    let again: Vec<_> = twenty.iter().chain(&twenty).collect();
    accepts(
        "interests",
        &[
            (json!([]), json!(null)),
            (json!(null), json!(null)),
            (json!(["b", "a"].map(|x| x.repeat(2))), json!(["bb", "aa"])),
            (json!(["music", "art", "music"]), json!(["music", "art"])),
            (json!(again), json!(twenty)),
        ],
    );
    refuses(
        "interests",
        &[
            json!("music"),
            json!({}),
            json!([1]),
            json!([["music"]]),
            json!(["a"]),
            json!(["x".repeat(33)]),
            json!(["Music"]),
            json!(["müzik"]),
            json!(["a b"]),
            json!(twenty_one),
        ],
    );
}

#[test]
fn a_biography_has_at_most_500_characters() {
    accepts(
        "bio",
        &[
            (json!("Hi\nthere 👩‍🚀"), json!("Hi\nthere 👩‍🚀")),
            (json!("ş".repeat(500)), json!("ş".repeat(500))),
            (json!(""), json!(null)),
            (json!("   "), json!(null)),
        ],
    );
    refuses("bio", &not_texts());
    refuses(
        "bio",
        &[
            json!("x".repeat(501)),
            json!("a\u{202e}b"),
            json!("a\u{7}b"),
            json!("\u{2066}"),
        ],
    );
}

#[test]
fn an_email_is_one_address() {
    let long = |n: usize| format!("{}@{}.example.com", "a".repeat(60), "b".repeat(n));
    accepts(
        "email",
        &[(
            json!("john.doe+x@example.com"),
            json!("john.doe+x@example.com"),
        )],
    );
    refuses("email", &not_texts());
    refuses(
        "email",
        &[
            json!(""),
            json!("john"),
            json!("john@"),
            json!("@example.com"),
            json!("john@localhost"),
            json!("john@example.com, jane@example.com"),
            json!("John <john@example.com>"),
            json!("john@[127.0.0.1]"),
            json!("john@example.com\n"),
            json!("john\u{202e}@example.com"),
            json!("john@exam\u{200b}ple.com"),
            json!("\"a\u{0}b\"@example.com"),
            json!(long(250)),
        ],
    );
}

#[test]
fn handles_have_no_at_sign() {
    for name in ["instagram", "tiktok", "x", "snapchat", "facebook"] {
        accepts(
            name,
            &[
                (json!("john.DOE_1-2"), json!("john.DOE_1-2")),
                (json!("x".repeat(50)), json!("x".repeat(50))),
            ],
        );
        refuses(name, &not_texts());
        refuses(
            name,
            &[
                json!(""),
                json!("@john"),
                json!("x".repeat(51)),
                json!("jöhn"),
                json!("https://example.com/john"),
            ],
        );
    }
}

/// The sentences of a registration's refusal; none when it is accepted.
fn registration_problems(members: &Value) -> Vec<String> {
    let mut body = json!({"username": "john", "name": "John", "surname": "Doe"});
    for (name, value) in members.as_object().unwrap() {
        body[name] = value.clone();
    }
    let mut fields = Fields::parse(body.to_string().as_bytes()).unwrap();
    let registration = registration(&mut fields, TODAY);
    match fields.finish() {
        Ok(()) => {
            registration.expect("a registration without a problem is complete");
            Vec::new()
        }
        Err(error) => error.sentences(Language::En).split_off(1),
    }
}

#[test]
fn a_phone_number_is_a_possible_e164_number() {
    for good in [
        json!({"countryCode": "90", "phoneNumber": "5551234567"}),
        json!({"countryCode": "+90", "phoneNumber": "+5551234567"}),
        json!({"countryCode": "1", "phoneNumber": "12345678901234"}),
        json!({}),
    ] {
        assert!(registration_problems(&good).is_empty(), "{good}");
    }
    for bad in [
        json!({"countryCode": "90"}),
        json!({"phoneNumber": "5551234567"}),
        json!({"countryCode": "090", "phoneNumber": "5551234567"}),
        json!({"countryCode": "9012", "phoneNumber": "5551234567"}),
        json!({"countryCode": "90", "phoneNumber": "555 123"}),
        json!({"countryCode": "90", "phoneNumber": "123"}),
        json!({"countryCode": "90", "phoneNumber": "12345678901234"}),
        json!({"countryCode": 90, "phoneNumber": 5_551_234_567_u64}),
    ] {
        assert!(!registration_problems(&bad).is_empty(), "{bad}");
    }
}

#[test]
fn every_bad_member_of_a_registration_is_reported_at_once() {
    let problems = registration_problems(&json!({
        "_id": "nope", "username": "Ali Işık", "name": "", "surname": 1, "gender": "x", "birthDate": "x",
        "email": "x", "roles": ["king"], "countryCode": "x", "phoneNumber": "x",
        "privacyPolicyAccepted": "yes", "privacyPolicyVersion": "", "lastLogin": "x", "king": true,
    }));
    assert_eq!(problems.len(), 14, "{problems:#?}");
    let suggestion =
        "username: may only have the letters a-z, digits, . and _; how about: ali_isik";
    assert!(problems.contains(&suggestion.to_owned()), "{problems:#?}");
}

proptest! {
    #[test]
    fn any_text_is_a_value_or_a_problem(text in ".{0,80}", name in 0_usize..10) {
        let name = ["name", "birthDate", "gender", "bio", "email", "instagram", "x", "expertise", "interests",
            "availabilityStatus"][name];
        if let Ok(Value::String(kept)) = member(name, &json!(text)) {
            prop_assert_eq!(member(name, &json!(&kept)), Ok(json!(kept)), "a stored value is parsed to itself");
        }
    }

    #[test]
    fn any_list_of_interests_is_a_set_of_slugs_or_a_problem(
        list in proptest::collection::vec("[a-zA-Z0-9 ş-]{0,34}|[a-c]{2}", 0..30),
    ) {
        if let Ok(kept) = member("interests", &json!(list)) {
            let kept: Vec<String> = serde_json::from_value(kept).unwrap_or_default();
            let distinct: std::collections::HashSet<_> = kept.iter().collect();
            prop_assert!(kept.len() <= 20 && distinct.len() == kept.len());
            prop_assert!(list.iter().all(|one| kept.contains(one)));
        }
    }

    #[test]
    fn any_text_in_a_registration_is_kept_by_the_rules_or_a_problem(
        text in ".{0,40}|[+0-9]{0,18}|[a-z._]{0,32}|[0-9a-f]{22,26}", flag in any::<bool>(),
    ) {
        if let Ok(digits) = country_code(&text) {
            prop_assert!((1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()));
        }
        if let Ok(digits) = phone_number(&text) {
            prop_assert!((4..=14).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()));
        }
        if let Ok(Some(label)) = Label::parse(&json!(text), TODAY) {
            prop_assert!((1..=32).contains(&label.chars().count()) && !label.chars().any(http_kit::hidden::is_hidden));
        }
        if let Ok(time) = time(&text) {
            prop_assert_eq!(super::time(&time.to_string()), Ok(time));
        }
        if let Ok(id) = user_id(&text) {
            prop_assert_eq!(id.to_string(), &text[..]);
        }
        match username(&text) {
            Ok(name) => prop_assert_eq!(name.as_str(), text.to_ascii_lowercase()),
            Err(reason) => prop_assert!(!reason.render(Language::Tr).ends_with(' ')),
        }
        let members = json!({
            "_id": text, "username": text, "countryCode": text, "phoneNumber": text, "roles": [text],
            "privacyPolicyVersion": text, "lastLogin": text, "privacyPolicyAccepted": flag,
        });
        let _ = registration_problems(&members);
    }

    #[test]
    fn any_json_in_a_member_is_a_value_or_a_problem(
        name in "name|surname|birthDate|gender|bio|email|tiktok|facebook|expertise|interests|roles|lastLogin",
        json in r#"null|true|-?[0-9]{1,20}|\[\]|\{\}|"[a-z]{0,9}"|\[("a"|1|null|\[\])\]|\{"a":1\}"#,
    ) {
        let value: Value = serde_json::from_str(&json).unwrap_or_default();
        let mut members = json!({});
        members[name] = value;
        let _ = registration_problems(&members);
    }

    #[test]
    fn any_text_is_a_birth_date_in_range_or_a_problem(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.Z+-]{0,20})?") {
        if let Ok(Some(date)) = kinds::BirthDate::parse(&json!(text), TODAY) {
            prop_assert!(("1900-01-01".to_owned()..="2013-05-22".to_owned()).contains(&date));
        }
    }
}
