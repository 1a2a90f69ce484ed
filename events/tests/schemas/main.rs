//! Compares the published schemas with the written events, the released schemas and the readable
//! events.
//!
//! When a test here fails because a payload has changed: a released schema may gain optional
//! members, and its annotations may change. For every other change write a new schema version with
//! an upcaster.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod any;
mod compatibility;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use events::schema::{self, ENVELOPE, Published};
use events::{Recorded, UserEvent};
use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::any::any_event;
use crate::compatibility::breaks;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Every envelope of the golden corpus.
fn corpus() -> Vec<Value> {
    let files = std::fs::read_dir(folder("golden")).unwrap();
    files.map(|entry| read(&entry.unwrap().path())).collect()
}

/// A validator that also checks formats.
fn validator(schema: &Value) -> Validator {
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap()
}

fn validators() -> BTreeMap<String, Validator> {
    let schemas = schema::all().into_iter();
    schemas
        .map(|published| (published.path(), validator(&published.schema)))
        .collect()
}

#[track_caller]
fn keeps_to(validator: &Validator, value: &Value) {
    let errors: Vec<_> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert_eq!(errors, [""; 0], "{value:#}");
}

/// The released schema of every name and version.
fn released() -> BTreeMap<String, Value> {
    let mut released = BTreeMap::new();
    for name in std::fs::read_dir(folder("../api/schemas")).unwrap() {
        for file in std::fs::read_dir(name.unwrap().path()).unwrap() {
            let schema = read(&file.unwrap().path());
            released.insert(schema["$id"].as_str().unwrap().to_owned(), schema);
        }
    }
    released
}

#[test]
fn no_schema_breaks_a_reader_of_the_released_one() {
    let now: BTreeMap<_, _> = schema::all()
        .into_iter()
        .map(|published| (published.path(), published.schema))
        .collect();
    let mut refused = Vec::new();
    for (path, released) in released() {
        match now.get(&path) {
            None => refused.push(format!(
                "{path} is not generated any more, but its events stay in ledgers for ever"
            )),
            Some(now) => {
                let breaks = breaks(&released, now);
                refused.extend(breaks.iter().map(|found| format!("{path}: {found}")));
            }
        }
    }
    assert!(
        refused.is_empty(),
        "\n{}\nWrite a new schema version instead; events/README.md says how.",
        refused.join("\n")
    );
}

#[test]
fn every_schema_is_valid_stands_alone_and_is_open() {
    for Published { name, schema, .. } in schema::all() {
        assert!(jsonschema::draft202012::meta::is_valid(&schema), "{name}");
        let text = schema.to_string();
        for absent in ["\"$ref\"", "\"$defs\"", "\"additionalProperties\":false"] {
            assert!(!text.contains(absent), "{name}: {absent}");
        }
        for (member, schema) in schema["properties"].as_object().unwrap() {
            let description = schema["description"].as_str();
            assert!(description.is_some(), "{name}.{member} is not described");
        }
    }
}

#[test]
fn every_type_and_version_of_the_golden_corpus_has_its_schema() {
    let published: BTreeSet<_> = schema::all().iter().map(Published::path).collect();
    let mut named: BTreeSet<_> = corpus()
        .iter()
        .map(|event| event["dataschema"].as_str().unwrap().to_owned())
        .collect();
    named.insert(format!("/schemas/{ENVELOPE}/1.json"));
    assert_eq!(published, named);
    assert!(!UserEvent::TYPES.contains(&ENVELOPE));
}

#[test]
fn the_golden_corpus_is_valid_by_the_schemas() {
    let validators = validators();
    for event in corpus() {
        keeps_to(&validators[&format!("/schemas/{ENVELOPE}/1.json")], &event);
        let dataschema = event["dataschema"].as_str().unwrap();
        keeps_to(&validators[dataschema], &event["data"]);
    }
}

/// Whether the program can read data as the type and version of an event.
fn is_read(event: &Value, data: &Value) -> bool {
    let version = u32::try_from(event["schemaversion"].as_u64().unwrap()).unwrap();
    UserEvent::from_json(event["type"].as_str().unwrap(), version, &data.to_string()).is_ok()
}

/// Every member of an object, also in nested objects and lists, as a JSON Pointer.
fn members(value: &Value, pointer: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, member) in object {
                let pointer = format!("{pointer}/{name}");
                found.push(pointer.clone());
                members(member, &pointer, found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                members(item, &format!("{pointer}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// Differences from the schema that are read all the same. Any other difference is refused.
/// `events/README.md` lists these for people.
fn is_tolerated(event: &Value, schema: &Value, pointer: &str, change: &str) -> bool {
    let consents = [
        "/privacyPolicyAccepted",
        "/termsOfUseAccepted",
        "/consentFormAccepted",
    ];
    let may_be_without_value = !["/name", "/surname", "/interests"]
        .iter()
        .any(|always| pointer.starts_with(always));
    let required = schema["required"].as_array().into_iter().flatten();
    let is_optional = |name: &str| required.clone().all(|required| required != name);
    let [_, name] = pointer.split('/').collect::<Vec<_>>()[..] else {
        // One side of a change from or to no value.
        return event["type"] == "profile-updated" && change == "removed" && may_be_without_value;
    };
    match change {
        // A consent that was not given.
        "removed" => consents.contains(&pointer),
        // A member without a value, written as `null`.
        "null" => is_optional(name),
        // Both sides are absent.
        "an object" => event["type"] == "profile-updated" && may_be_without_value,
        _ => false,
    }
}

#[test]
fn events_that_break_a_schema_are_refused_except_for_known_harmless_differences() {
    let published = schema::all();
    let (mut refused, mut unknown) = (0, Vec::new());
    for event in corpus() {
        let event_type = event["type"].as_str().unwrap();
        let mut shapes = published.iter();
        let shape = shapes.find(|shape| event["dataschema"] == shape.path());
        let schema = &shape.unwrap().schema;
        let validator = validator(schema);
        let mut pointers = Vec::new();
        members(&event["data"], "", &mut pointers);
        for pointer in pointers {
            for (change, value) in [
                ("removed", None),
                ("null", Some(Value::Null)),
                ("a number", Some(json!(-1.5))),
                ("a text", Some(json!("\u{0}"))),
                ("a list", Some(json!([[]]))),
                ("an object", Some(json!({"x": {}}))),
                ("true", Some(json!(true))),
            ] {
                let mut data = event["data"].clone();
                let (parent, name) = pointer.rsplit_once('/').unwrap();
                match (data.pointer_mut(parent).unwrap(), value) {
                    (Value::Object(object), None) => drop(object.shift_remove(name)),
                    (Value::Object(object), Some(value)) => object[name] = value,
                    _ => unreachable!("members are of objects"),
                }
                if validator.is_valid(&data) {
                    assert!(is_read(&event, &data), "{event_type} {pointer}: {change}");
                    continue;
                }
                if !is_read(&event, &data) {
                    refused += 1;
                } else if !is_tolerated(&event, schema, &pointer, change) {
                    unknown.push(format!("{event_type} {pointer}: {change}"));
                }
            }
        }
    }
    assert!(refused > 300, "{refused}");
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn times_are_read_in_any_rfc_3339_form_and_written_in_one() {
    let mut events = corpus().into_iter();
    let event = events.find(|event| event["type"] == "username-changed");
    let event = event.unwrap();
    let mut data = event["data"].clone();
    data["heldUntil"] = json!("2024-02-14T13:30:03+03:00");
    let path = event["dataschema"].as_str().unwrap();
    assert!(!validators()[path].is_valid(&data));
    assert!(is_read(&event, &data));
}

proptest! {
    #[test]
    fn every_event_is_written_as_its_schema_says(recorded in any_event()) {
        let stored = recorded.to_stored();
        let event: Value = serde_json::from_slice(&stored.envelope).unwrap();
        let published = schema::all();
        for shape in &published {
            if shape.name == ENVELOPE {
                keeps_to(&validator(&shape.schema), &event);
            } else if event["dataschema"] == shape.path() {
                keeps_to(&validator(&shape.schema), &event["data"]);
            }
        }
        prop_assert_eq!(Recorded::from_envelope(&stored.envelope).unwrap(), recorded);
    }
}
