//! The published shapes: a JSON Schema (2020-12) of each event's data and one of the envelope, made from
//! the types that write them.
//!
//! They say what is written, and by it what a reader may rely on. Members that are not known are allowed
//! everywhere, so a reader passes over them and one may be added. There are no references: each schema
//! stands alone.

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use crate::envelope::{Json, schema_path};
use crate::event::{
    PhotoChanged, ProfileUpdated, UserRegistered, UsernameChanged, each_event_type,
};

/// The name of the envelope's schema. No event type may be called so.
pub const ENVELOPE: &str = "envelope";

/// What is published of one shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The type of the event, or [`ENVELOPE`].
    pub name: &'static str,
    /// The version of the shape.
    pub version: u32,
    /// The schema.
    pub schema: Value,
    /// A whole event of this shape.
    pub example: &'static str,
}

impl Published {
    /// Where it is served: what `dataschema` of its events says.
    pub fn path(&self) -> String {
        schema_path(self.name, self.version)
    }

    /// The schema as text, as it is served and kept.
    pub fn text(&self) -> String {
        format!("{:#}\n", self.schema)
    }
}

/// Every released shape, the envelope last. A file of the golden corpus is its example.
pub fn all() -> Vec<Published> {
    macro_rules! published {
        ($($(#[doc = $doc:literal])* $variant:ident($payload:ty) = $name:literal, $version:literal;)*) => {
            vec![
                $(of::<$payload>(
                    $name,
                    $version,
                    include_str!(concat!("../golden/", $name, ".", $version, ".json")),
                ),)*
                of::<Json<'_>>(
                    ENVELOPE,
                    1,
                    include_str!("../golden/username-changed.1.json"),
                ),
            ]
        };
    }
    each_event_type!(published)
}

/// What is published of the shape that a type writes.
fn of<T: JsonSchema>(name: &'static str, version: u32, example: &'static str) -> Published {
    let settings = SchemaSettings::draft2020_12()
        .for_serialize()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(RecursiveTransform(what_is_written));
    let mut made = settings.into_generator().into_root_schema_for::<T>();
    let event: Value = serde_json::from_str(example).expect("the golden corpus is JSON");
    let first = [
        ("$schema", made.remove("$schema").unwrap_or_default()),
        ("$id", schema_path(name, version).into()),
        ("title", format!("{name}, version {version}").into()),
        (
            "description",
            made.remove("description").unwrap_or_default(),
        ),
    ];
    made.remove("title");
    let example_of_it = match name {
        ENVELOPE => &event,
        _ => &event["data"],
    };
    made.insert("examples".to_owned(), json!([example_of_it]));
    let first = first.map(|(keyword, value)| (keyword.to_owned(), value));
    let rest = made.as_object_mut().into_iter().flat_map(std::mem::take);
    Published {
        name,
        version,
        schema: first.into_iter().chain(rest).collect(),
        example: example.trim_end(),
    }
}

/// Makes a schema say what is written, where it says what would be read: a member that need not be there
/// is left out when it has no value, never `null`, and none is assumed to have another.
fn what_is_written(schema: &mut Schema) {
    schema.remove("default");
    if let Some(Value::String(lines)) = schema.get_mut("description") {
        *lines = lines.replace('\n', " ");
    }
    let required = schema.get("required").cloned().unwrap_or_default();
    let members = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (name, member) in members.into_iter().flatten() {
        let mut names = required.as_array().into_iter().flatten();
        if names.any(|required| required == name) {
            continue;
        }
        if let Some(types) = member.get_mut("type").and_then(Value::as_array_mut) {
            types.retain(|kind| kind != "null");
            if let [only] = &types[..] {
                member["type"] = only.clone();
            }
        }
    }
}
