//! What changed, field by field, for people to read.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use events::UserEvent;

/// One field before and after. `null` stands for a field that had no value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldChange {
    /// The field, by its name in the published profile; a dot leads into it.
    pub field: String,
    /// What it was.
    pub before: Value,
    /// What it is afterwards.
    pub after: Value,
}

impl FieldChange {
    fn new(field: &str, before: impl Into<Value>, after: impl Into<Value>) -> Self {
        Self {
            field: field.to_owned(),
            before: before.into(),
            after: after.into(),
        }
    }
}

/// What an event changed, with the values that are stored in it.
pub fn of(event: &UserEvent) -> Vec<FieldChange> {
    match event {
        UserEvent::UserRegistered(registered) => {
            between(&Map::new(), &object(registered)).collect()
        }
        UserEvent::ProfileUpdated(updated) => object(updated)
            .into_iter()
            .map(|(field, mut change)| FieldChange {
                field,
                before: change["before"].take(),
                after: change["after"].take(),
            })
            .collect(),
        UserEvent::PhotoChanged(changed) => {
            let before = changed.previous_photo_id.map(|id| id.to_string());
            let after = changed.photo_id.to_string();
            vec![FieldChange::new("profilePhoto._id", before, after)]
        }
        UserEvent::UsernameChanged(changed) => {
            let (before, after) = (changed.before.clone(), changed.after.clone());
            vec![FieldChange::new("username", before, after)]
        }
    }
}

/// The fields by which two published forms of a user differ: first those of the one in its order, then
/// those that only the other has.
pub fn between<'a>(
    before: &'a Map<String, Value>,
    after: &'a Map<String, Value>,
) -> impl Iterator<Item = FieldChange> + 'a {
    let value = |of: &Map<String, Value>, field: &str| of.get(field).cloned().unwrap_or_default();
    let only_after = after.keys().filter(|field| !before.contains_key(*field));
    before.keys().chain(only_after).filter_map(move |field| {
        let change = FieldChange::new(field, value(before, field), value(after, field));
        (change.before != change.after).then_some(change)
    })
}

/// The members of what is written as a JSON object.
pub fn object(of: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(of) {
        Ok(Value::Object(members)) => members,
        // Profiles and payloads are structs with names for keys.
        _ => unreachable!("only objects are compared"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use events::event::{Change, PhotoChanged, ProfileUpdated, UsernameChanged};
    use events::{PhotoId, Time};

    fn listed(changes: impl IntoIterator<Item = FieldChange>) -> Vec<(String, Value, Value)> {
        let parts = |change: FieldChange| (change.field, change.before, change.after);
        changes.into_iter().map(parts).collect()
    }

    #[test]
    fn an_event_changes_the_fields_that_it_names() {
        let updated = ProfileUpdated {
            name: Change::between(&"John".to_owned(), &"Johnny".to_owned()),
            interests: Change::between(&vec!["music".to_owned()], &vec![]),
            bio: Change::between(&None, &Some("Hello".to_owned())),
            ..ProfileUpdated::default()
        };
        let changes = listed(of(&UserEvent::ProfileUpdated(Box::new(updated))));
        assert_eq!(
            changes,
            [
                ("name".to_owned(), json!("John"), json!("Johnny")),
                ("interests".to_owned(), json!(["music"]), json!([])),
                ("bio".to_owned(), json!(null), json!("Hello")),
            ]
        );
        let renamed = UserEvent::UsernameChanged(UsernameChanged {
            before: "john".to_owned(),
            after: "johnny".to_owned(),
            held_until: Time::from_millis(0),
        });
        let wanted = [("username".to_owned(), json!("john"), json!("johnny"))];
        assert_eq!(listed(of(&renamed)), wanted);
    }

    #[test]
    fn a_first_photo_changes_nothing_into_something() {
        let [first, second] = [1, 2].map(|n| PhotoId::new(Time::from_millis(0), [n; 8]));
        let photo = |previous| {
            UserEvent::PhotoChanged(Box::new(PhotoChanged {
                photo_id: second,
                content_hash: String::new(),
                size: 0,
                media_type: String::new(),
                width: 0,
                height: 0,
                main: String::new(),
                variants: Vec::new(),
                previous_photo_id: previous,
            }))
        };
        for previous in [None, Some(first)] {
            let wanted = [(
                "profilePhoto._id".to_owned(),
                json!(previous),
                json!(second),
            )];
            assert_eq!(listed(of(&photo(previous))), wanted);
        }
    }

    fn any_object() -> impl Strategy<Value = Map<String, Value>> {
        let value = prop_oneof![
            Just(json!(["x"])),
            any::<u8>().prop_map(Value::from),
            "[a-c]?".prop_map(Value::from),
        ];
        proptest::collection::vec(("[a-e]", value), 0..6)
            .prop_map(|members| members.into_iter().collect())
    }

    proptest! {
        #[test]
        fn the_changes_make_the_one_into_the_other(before in any_object(), after in any_object()) {
            let mut made = before.clone();
            for change in between(&before, &after) {
                prop_assert_ne!(&change.before, &change.after);
                prop_assert_eq!(made.get(&change.field).cloned().unwrap_or_default(), change.before);
                match change.after {
                    Value::Null => drop(made.remove(&change.field)),
                    after => drop(made.insert(change.field, after)),
                }
            }
            prop_assert_eq!(made, after);
        }
    }
}
