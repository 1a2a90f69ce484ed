//! The golden corpus: one frozen envelope for each released event type and schema version. Together
//! they are the history of one user, in the order of their positions.
//!
//! When a test here fails because a payload has changed: never edit a released file. Add an
//! optional member, or add a new schema version with an upcaster and a file of its own.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use events::document::fold;
use events::{LeafHash, Recorded, UserEvent};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Every file by the position of its event.
fn corpus() -> BTreeMap<u64, (String, Vec<u8>)> {
    std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let mut bytes = std::fs::read(path).unwrap();
            assert_eq!(bytes.pop(), Some(b'\n'), "{name} ends with one line end");
            let recorded = Recorded::from_envelope(&bytes).expect(&name);
            (recorded.position, (name, bytes))
        })
        .collect()
}

#[test]
fn every_current_type_and_version_has_a_frozen_example() {
    let names: Vec<_> = corpus().into_values().map(|(name, _)| name).collect();
    for (name, bytes) in corpus().into_values() {
        let recorded = Recorded::from_envelope(&bytes).unwrap();
        let event = recorded.event;
        let file = format!("{}.{}.json", event.event_type(), event.schema_version());
        assert!(names.contains(&file), "{name}");
    }
    for event_type in UserEvent::TYPES {
        let first = format!("{event_type}.1.json");
        assert!(
            names.contains(&first),
            "add `events/golden/{first}`: the first event of the new type, after the existing ones"
        );
    }
}

#[test]
fn a_file_is_named_for_its_stored_type_and_version() {
    for (name, bytes) in corpus().into_values() {
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let (event_type, version) = (json["type"].as_str().unwrap(), &json["schemaversion"]);
        assert_eq!(name, format!("{event_type}.{version}.json"));
    }
}

#[test]
fn the_whole_corpus_folds() {
    let mut document = None;
    for (position, (name, bytes)) in corpus() {
        let recorded = Recorded::from_envelope(&bytes).unwrap();
        assert_eq!(recorded.position, position);
        document = Some(fold(document, &recorded).expect(&name));
    }
    let document = document.unwrap();
    assert_eq!(document.username, "john.doe");
    assert_eq!(document.profile.name, "Johnny");
    assert_eq!(document.profile.email, None);
    assert_eq!(document.photo.unwrap().variants.len(), 5);
}

#[test]
fn a_current_event_is_written_byte_for_byte_as_it_was_frozen() {
    for (name, bytes) in corpus().into_values() {
        let recorded = Recorded::from_envelope(&bytes).unwrap();
        if name
            != format!(
                "{}.{}.json",
                recorded.event.event_type(),
                recorded.event.schema_version()
            )
        {
            continue; // An older version: still read, not written any more.
        }
        let stored = recorded.to_stored();
        assert_eq!(
            String::from_utf8_lossy(&stored.envelope),
            String::from_utf8_lossy(&bytes),
            "{name}"
        );
        assert_eq!(stored.leaf_hash, LeafHash::of(&bytes));
    }
}

#[test]
fn each_event_names_the_hash_of_the_one_before() {
    let mut before: Option<(u64, LeafHash)> = None;
    for (position, (name, bytes)) in corpus() {
        let previous = Recorded::from_envelope(&bytes).unwrap().previous;
        assert_eq!(
            previous.map(|previous| (previous.position, previous.hash)),
            before,
            "{name}"
        );
        before = Some((position, LeafHash::of(&bytes)));
    }
}
