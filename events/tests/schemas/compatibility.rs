//! The changes that a schema may make without breaking readers of its released form. Pure.

use std::fmt;

use serde_json::{Map, Value};

/// One change that would break a reader of the released schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Break {
    /// The path of the member, such as `variants[].size`; empty for the whole schema.
    path: String,
    why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    Removed,
    NowOptional,
    NowRequired,
    AddedAsRequired,
    Type {
        was: String,
        is: String,
    },
    Narrowed {
        gone: String,
    },
    Widened {
        new: String,
    },
    Closed,
    Keyword {
        name: String,
        was: String,
        is: String,
    },
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self.path.as_str() {
            "" => "the whole",
            path => path,
        };
        match &self.why {
            Why::Removed => write!(f, "{path} was removed: readers take it from events"),
            Why::NowOptional => write!(f, "{path} may be left out now: readers count on it"),
            Why::NowRequired => write!(
                f,
                "{path} is required now: events that were written without it are not valid any more"
            ),
            Why::AddedAsRequired => write!(
                f,
                "{path} is new and required: events that were written before do not have it"
            ),
            Why::Type { was, is } => write!(
                f,
                "{path} was of type {was} and is {is} now: readers take it as {was}"
            ),
            Why::Narrowed { gone } => write!(
                f,
                "{path} cannot be {gone} any more: written events have this value"
            ),
            Why::Widened { new } => {
                write!(f, "{path} can be {new} now: readers do not know this value")
            }
            Why::Closed => write!(
                f,
                "{path} does not allow unknown members any more: none could be added later"
            ),
            Why::Keyword { name, was, is } => write!(
                f,
                "{path} had {name} {was} and has {is} now: readers count on the released value"
            ),
        }
    }
}

/// Keywords for people; programs ignore them.
const ANNOTATIONS: [&str; 4] = ["title", "description", "examples", "$comment"];

/// Every change of a schema that breaks readers of the released one. Annotations may change, and
/// optional members may be added. Any other difference is a break, also one that nobody foresaw.
pub(crate) fn breaks(released: &Value, now: &Value) -> Vec<Break> {
    let mut found = Vec::new();
    compare("", released, now, &mut found);
    found
}

fn compare(path: &str, was: &Value, is: &Value, found: &mut Vec<Break>) {
    let mut broken = |why| {
        found.push(Break {
            path: path.to_owned(),
            why,
        });
    };
    let (Some(was), Some(is)) = (was.as_object(), is.as_object()) else {
        if was != is {
            broken(keyword("its schema", Some(was), Some(is)));
        }
        return;
    };
    if was.get("type") != is.get("type") {
        broken(Why::Type {
            was: shown(was.get("type")),
            is: shown(is.get("type")),
        });
        return;
    }
    if let (Some(Value::Array(was)), Some(Value::Array(is))) = (was.get("enum"), is.get("enum")) {
        for gone in was.iter().filter(|value| !is.contains(value)) {
            broken(Why::Narrowed {
                gone: gone.to_string(),
            });
        }
        for new in is.iter().filter(|value| !was.contains(value)) {
            broken(Why::Widened {
                new: new.to_string(),
            });
        }
    } else if was.get("enum") != is.get("enum") {
        broken(keyword("enum", was.get("enum"), is.get("enum")));
    }
    let is_open = |schema: &Map<String, Value>| {
        schema.get("additionalProperties") != Some(&Value::Bool(false))
    };
    if is_open(was) && !is_open(is) {
        broken(Why::Closed);
    } else {
        other_keyword("additionalProperties", was, is, &mut broken);
    }
    let known = [
        "type",
        "enum",
        "additionalProperties",
        "properties",
        "required",
        "items",
    ];
    let mut names: Vec<_> = was.keys().chain(is.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        if !known.contains(&name.as_str()) && !ANNOTATIONS.contains(&name.as_str()) {
            other_keyword(name, was, is, &mut broken);
        }
    }
    match (was.get("items"), is.get("items")) {
        (Some(was), Some(is)) => compare(&format!("{path}[]"), was, is, found),
        (was, is) if was != is => found.push(Break {
            path: path.to_owned(),
            why: keyword("items", was, is),
        }),
        _ => {}
    }
    members(path, was, is, found);
}

fn members(path: &str, was: &Map<String, Value>, is: &Map<String, Value>, found: &mut Vec<Break>) {
    let none = Map::new();
    let of = |schema: &'_ Map<String, Value>| {
        schema
            .get("properties")
            .and_then(Value::as_object)
            .unwrap_or(&none)
            .clone()
    };
    let requires = |schema: &Map<String, Value>, name: &str| {
        let names = schema.get("required").and_then(Value::as_array);
        names.is_some_and(|names| names.iter().any(|required| required == name))
    };
    let (before, after) = (of(was), of(is));
    for (name, member) in &before {
        let path = within(path, name);
        let why = match (after.get(name), requires(was, name), requires(is, name)) {
            (None, ..) => Why::Removed,
            (Some(_), true, false) => Why::NowOptional,
            (Some(_), false, true) => Why::NowRequired,
            (Some(now), ..) => {
                compare(&path, member, now, found);
                continue;
            }
        };
        found.push(Break { path, why });
    }
    let required = is.get("required").and_then(Value::as_array);
    let required = required.into_iter().flatten().filter_map(Value::as_str);
    for name in required.filter(|name| !before.contains_key(*name) && !requires(was, name)) {
        found.push(Break {
            path: within(path, name),
            why: Why::AddedAsRequired,
        });
    }
}

fn other_keyword(
    name: &str,
    was: &Map<String, Value>,
    is: &Map<String, Value>,
    broken: &mut impl FnMut(Why),
) {
    if was.get(name) != is.get(name) {
        broken(keyword(name, was.get(name), is.get(name)));
    }
}

fn keyword(name: &str, was: Option<&Value>, is: Option<&Value>) -> Why {
    Why::Keyword {
        name: name.to_owned(),
        was: shown(was),
        is: shown(is),
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "none".to_owned(), Value::to_string)
}

fn within(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn released() -> Value {
        json!({
            "$id": "/schemas/user-met/1.json",
            "description": "A user met another.",
            "type": "object",
            "properties": {
                "with": {"type": "string", "pattern": "^[0-9a-f]{24}$", "description": "Whom."},
                "mood": {"type": "string", "enum": ["good", "bad"]},
                "note": {"type": "string"},
                "places": {"type": "array", "items": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "size": {"type": "integer", "minimum": 0}},
                    "required": ["name"],
                }},
            },
            "required": ["with", "mood", "places"],
        })
    }

    /// The breaks after a change of the test's schema. The change is a JSON Pointer and a value;
    /// `null` removes.
    fn told(pointer: &str, value: Value) -> Vec<String> {
        let mut now = released();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = now.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            parent.remove(name).unwrap();
        } else {
            parent.insert(name.to_owned(), value);
        }
        breaks(&released(), &now)
            .iter()
            .map(Break::to_string)
            .collect()
    }

    #[test]
    fn a_schema_is_compatible_with_itself() {
        assert_eq!(breaks(&released(), &released()), []);
    }

    #[test]
    fn an_optional_member_may_be_added_anywhere() {
        let whole = told("/properties/since", json!({"type": "string"}));
        assert_eq!(whole, [""; 0]);
        let inner = "/properties/places/items/properties/since";
        assert_eq!(told(inner, json!({"type": "string"})), [""; 0]);
    }

    #[test]
    fn annotations_may_change() {
        assert_eq!(told("/description", json!("They met.")), [""; 0]);
        assert_eq!(told("/properties/with/description", Value::Null), [""; 0]);
        assert_eq!(told("/title", json!("Met")), [""; 0]);
    }

    #[test]
    fn the_order_of_required_members_does_not_matter() {
        let mut now = released();
        now["required"] = json!(["places", "mood", "with"]);
        assert_eq!(breaks(&released(), &now), []);
    }

    #[test]
    fn a_member_that_is_removed_is_refused() {
        let said = told("/properties/note", Value::Null);
        assert_eq!(said, ["note was removed: readers take it from events"]);
        let said = told("/properties/places/items/properties/size", Value::Null);
        assert_eq!(
            said,
            ["places[].size was removed: readers take it from events"]
        );
        let said = told("/properties", Value::Null);
        assert_eq!(said.len(), 4, "{said:?}");
    }

    #[test]
    fn a_required_member_that_becomes_optional_is_refused() {
        let said = told("/required", json!(["with", "places"]));
        assert_eq!(said, ["mood may be left out now: readers count on it"]);
        let said = told("/required", Value::Null);
        assert_eq!(said.len(), 3, "{said:?}");
    }

    #[test]
    fn an_optional_member_that_becomes_required_is_refused() {
        let said = told("/required", json!(["with", "mood", "places", "note"]));
        let why =
            "note is required now: events that were written without it are not valid any more";
        assert_eq!(said, [why]);
    }

    #[test]
    fn a_new_member_that_is_required_is_refused() {
        let mut now = released();
        now["properties"]["since"] = json!({"type": "string"});
        now["required"] = json!(["with", "mood", "places", "since"]);
        let why = "since is new and required: events that were written before do not have it";
        let said: Vec<_> = breaks(&released(), &now)
            .iter()
            .map(Break::to_string)
            .collect();
        assert_eq!(said, [why]);
        // Also when the member has no other description.
        let said = told("/required", json!(["with", "mood", "places", "since"]));
        assert_eq!(said, [why]);
    }

    #[test]
    fn a_changed_type_is_refused_even_when_null_is_added() {
        let said = told("/properties/note", json!({"type": "integer"}));
        let why =
            "note was of type \"string\" and is \"integer\" now: readers take it as \"string\"";
        assert_eq!(said, [why]);
        let said = told("/properties/note/type", json!(["string", "null"]));
        assert_eq!(said.len(), 1, "{said:?}");
        let said = told(
            "/properties/places/items/properties/size/type",
            json!("number"),
        );
        assert!(said[0].starts_with("places[].size was of type"), "{said:?}");
        let said = told("/properties/note", json!(true));
        assert_eq!(said.len(), 1, "{said:?}");
    }

    #[test]
    fn an_enum_that_changes_or_disappears_is_refused() {
        let said = told("/properties/mood/enum", json!(["good"]));
        let why = "mood cannot be \"bad\" any more: written events have this value";
        assert_eq!(said, [why]);
        let said = told("/properties/mood/enum", json!(["good", "bad", "odd"]));
        let why = "mood can be \"odd\" now: readers do not know this value";
        assert_eq!(said, [why]);
        assert_eq!(told("/properties/mood/enum", Value::Null).len(), 1);
        let said = told("/properties/note/enum", json!(["a"]));
        assert_eq!(said.len(), 1, "{said:?}");
    }

    #[test]
    fn a_schema_that_closes_is_refused() {
        let why = "does not allow unknown members any more: none could be added later";
        let said = told("/additionalProperties", json!(false));
        assert_eq!(said, [format!("the whole {why}")]);
        let said = told(
            "/properties/places/items/additionalProperties",
            json!(false),
        );
        assert_eq!(said, [format!("places[] {why}")]);
        let said = told("/additionalProperties", json!({"type": "string"}));
        assert_eq!(said.len(), 1, "{said:?}");
    }

    #[test]
    fn any_other_changed_promise_is_refused() {
        let said = told("/properties/with/pattern", json!("^[0-9a-f]{32}$"));
        let why = "with had pattern \"^[0-9a-f]{24}$\" and has \"^[0-9a-f]{32}$\" now: \
                   readers count on the released value";
        assert_eq!(said, [why]);
        for (pointer, value) in [
            ("/properties/with/pattern", Value::Null),
            ("/properties/note/format", json!("uri")),
            ("/properties/note/maxLength", json!(10)),
            ("/properties/note/const", json!("x")),
            ("/properties/places/items", json!(true)),
            ("/properties/places/items", Value::Null),
            ("/properties/places/minItems", json!(1)),
            ("/properties/places/items/properties/size/minimum", json!(1)),
            ("/$id", json!("/schemas/user-met/2.json")),
            ("/anyOf", json!([{"required": ["note"]}])),
            ("/unevaluatedProperties", json!(false)),
            ("/if", json!({"required": ["note"]})),
        ] {
            let said = told(pointer, value);
            assert_eq!(said.len(), 1, "{pointer}: {said:?}");
        }
    }
}
