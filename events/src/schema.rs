//! The published shapes: a JSON Schema (2020-12) for the data of each event and one for the
//! envelope, made from the types that write them.
//!
//! The schemas describe written events, so readers may rely on them. Unknown members are allowed
//! everywhere: readers ignore them, and new ones can be added. There are no references; each schema
//! stands alone.

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use crate::envelope::{Json, schema_path};
use crate::event::each_event_type;

/// The name of the envelope's schema. An event type must not have this name.
pub const ENVELOPE: &str = "envelope";

/// The published description of one shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The event type, or [`ENVELOPE`].
    pub name: &'static str,
    /// The schema version.
    pub version: u32,
    /// The schema.
    pub schema: Value,
    /// A whole event of this shape.
    pub example: &'static str,
}

impl Published {
    /// The path of the schema, as in `dataschema` of its events.
    pub fn path(&self) -> String {
        schema_path(self.name, self.version)
    }

    /// The schema as text, as it is served and stored.
    pub fn text(&self) -> String {
        format!("{:#}\n", self.schema)
    }
}

/// Every released shape, the envelope last. The example is a file of the golden corpus.
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

/// The published description of the shape that a type writes.
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

/// Makes a schema describe written instead of readable events: an optional member without a value
/// is left out, never `null`, and no member has a default.
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
