use std::path::Path;

use super::*;

/// The official schema, which `scripts/api-tools` brings.
fn official() -> jsonschema::Validator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/asyncapi/3.0.0.json");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}: run scripts/api-tools", path.display()));
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
}

fn read(language: Language) -> Value {
    serde_json::from_str(&document(language)).unwrap()
}

/// Every object of a document.
fn objects<'a>(value: &'a Value, found: &mut Vec<&'a Map<String, Value>>) {
    match value {
        Value::Object(members) => {
            found.push(members);
            members.values().for_each(|member| objects(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| objects(item, found)),
        _ => {}
    }
}

#[test]
fn the_document_is_asyncapi_3() {
    let official = official();
    for language in [Language::En, Language::Tr] {
        let errors: Vec<_> = official
            .iter_errors(&read(language))
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert_eq!(errors, [""; 0]);
    }
    let mut broken = read(Language::En);
    broken["channels"]["events"]["address"] = json!(7);
    assert!(!official.is_valid(&broken), "it is looked at in depth");
}

#[test]
fn every_reference_leads_somewhere() {
    let document = read(Language::En);
    let mut found = Vec::new();
    objects(&document, &mut found);
    let references: Vec<_> = found
        .iter()
        .filter_map(|object| object.get("$ref")?.as_str())
        .collect();
    assert!(references.len() > 30, "{references:?}");
    for reference in references {
        let pointer = reference.strip_prefix('#').expect(reference);
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn the_example_of_every_message_keeps_to_its_schemas() {
    let document = read(Language::En);
    let messages = document["components"]["messages"].as_object().unwrap();
    let mut examples = 0;
    for (name, message) in messages {
        for (part, schema) in [("headers", "headers"), ("payload", "payload")] {
            let Some(example) = message["examples"][0].get(part) else {
                continue;
            };
            // The schemas refer to the document, so they are read as a part of it.
            let pointer = format!("#/components/messages/{name}/{schema}");
            let root = json!({"components": document["components"], "$ref": pointer});
            let validator = jsonschema::draft7::new(&root).unwrap();
            let errors: Vec<_> = validator
                .iter_errors(example)
                .map(|error| error.to_string())
                .collect();
            assert_eq!(errors, [""; 0], "{name} {part}");
            examples += 1;
        }
    }
    let each = UserEvent::TYPES.len() * 3;
    assert_eq!(examples, each, "headers, data and envelope of each type");
}

#[test]
fn every_type_is_a_message_of_both_channels() {
    let document = read(Language::En);
    for channel in ["events", "stream"] {
        let messages = document["channels"][channel]["messages"].as_object();
        for event_type in UserEvent::TYPES {
            let messages = messages.unwrap().keys();
            let mut names = messages.filter_map(|key| key.rsplit_once('.'));
            assert!(names.any(|(name, _)| name == *event_type), "{event_type}");
        }
    }
}

#[test]
fn the_address_with_its_parameters_is_the_subject_of_an_event() {
    let document = read(Language::En);
    let channel = &document["channels"]["events"];
    let subject = subject::of(
        &"507f1f77bcf86cd799439011".parse().unwrap(),
        "photo-changed",
    );
    let allowed = |parameter: &str| channel["parameters"][parameter]["enum"].as_array().unwrap();
    assert_eq!(allowed("shard").len(), 64);
    let mut subjects = allowed("shard").iter().map(|shard| {
        let address = channel["address"].as_str().unwrap();
        let address = address.replace("{shard}", shard.as_str().unwrap());
        address.replace("{type}", "photo-changed")
    });
    assert!(subjects.any(|address| address == subject), "{subject}");
    assert!(allowed("type").contains(&json!("photo-changed")));
    assert_eq!(channel["x-jetstream"]["stream"]["name"], subject::STREAM);
    assert_eq!(
        channel["x-jetstream"]["stream"]["subjects"],
        json!([ledger::stream::SUBJECTS])
    );
}

#[test]
fn a_language_changes_texts_and_nothing_else() {
    let (mut english, mut turkish) = (read(Language::En), read(Language::Tr));
    assert_ne!(english, turkish);
    each_text(&mut english, &mut String::clear);
    each_text(&mut turkish, &mut String::clear);
    assert_eq!(english, turkish);
}
