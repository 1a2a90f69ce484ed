//! The OpenAPI 3.1 document of the API, made from the descriptions beside the handlers.
//!
//! Each crate with routes has a part ([`utoipa::OpenApi`]). [`document`] makes a complete document of one or several
//! parts. Each sentence is written in English where it belongs; [`crate::text`] translates it.

use serde_json::{Map, Value, json};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Components, Info, License, OpenApi, OpenApiBuilder, Ref, RefOr, Required, Schema, Server,
};

use crate::text::Language;

mod answers;
mod headers;
mod share;
mod translate;
pub mod values;

pub use answers::{Away, Fails, NotThere, Refuses, answer, bytes, described, json, stream, text};
pub use headers::{answer_header, etag, position, replayed};

/// The version of the API. It is not the version of the program.
const VERSION: &str = "1.0.0";
const ABOUT: &str = include_str!("openapi/about.md");

/// The groups of operations in display order, and their descriptions.
const TAGS: [(&str, &str); 8] = [
    (
        "Profile",
        "The profiles of the caller and of others. Every command answers with the complete new profile.",
    ),
    ("Photo", "The photo of the caller, and the bytes of photos."),
    (
        "Users",
        "Registration by the sign-up service, and the availability of usernames.",
    ),
    ("Search", "Users by the beginnings of words of their names."),
    (
        "Audit",
        "The history of users, and the record of its readers. Reading the history of another user is recorded before it is answered.",
    ),
    (
        "Proofs",
        "Signed checkpoints, tiles of hashes and proofs made from them, in the formats of c2sp.org/tlog-tiles.",
    ),
    ("Events", "Every event as it is committed."),
    (
        "Operations",
        "Probes, metrics, this document, and the page for auditors.",
    ),
];

/// The complete document of a part, in a language. `server` is the address of the service: a URL, or `/`.
pub fn document(part: OpenApi, language: Language, server: &str) -> Value {
    let mut info = Info::new("Profile Ledger", VERSION);
    info.description = Some(ABOUT.trim_end().to_owned());
    let mut license = License::new("Apache License 2.0");
    license.identifier = Some("Apache-2.0".to_owned());
    info.license = Some(license);
    let mut whole = OpenApiBuilder::new()
        .info(info)
        .servers(Some([Server::new(server)]))
        .components(Some(components()))
        .build();
    whole.merge(part);
    let mut document = serde_json::to_value(whole).expect("a description is JSON");
    document["tags"] = tags(&document["paths"]);
    translate::translate(&mut document, language);
    share::share(&mut document);
    document
}

/// The components that every part refers to.
fn components() -> Components {
    let mut components = Components::new();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(
            "A signed JWT, without the `Bearer` prefix. `sub` is the id of the user, or the name of a service; \
             `roles` holds `user` (also without the claim), `service`, `auditor` or `admin`.",
        ));
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
    components.schemas.extend(answers::schemas());
    components
}

/// The tags in use.
fn tags(paths: &Value) -> Value {
    let mut used = Vec::new();
    for (_, _, operation) in operations(paths) {
        used.extend(operation["tags"].as_array().into_iter().flatten().cloned());
    }
    let tags = TAGS
        .iter()
        .filter(|(name, _)| used.contains(&Value::from(*name)));
    tags.map(|(name, about)| json!({"name": name, "description": about}))
        .collect()
}

/// The operations of a document: path, method, description.
pub fn operations(paths: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = paths.as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let operations = item.as_object().into_iter().flatten();
        operations.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// A schema that is written as JSON.
pub fn schema(json: Value) -> RefOr<Schema> {
    if let Some(reference) = json["$ref"].as_str() {
        return RefOr::Ref(Ref::new(reference));
    }
    let schema: Schema = serde_json::from_value(json.clone()).expect("it is a schema");
    debug_assert_eq!(
        serde_json::to_value(&schema).ok(),
        Some(json),
        "a keyword of the schema is lost"
    );
    RefOr::T(schema)
}

/// A reference to a schema in the document.
pub fn reference(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}

/// An optional parameter of the query string.
pub fn query(name: &str, schema: Value, about: &str) -> Parameter {
    parameter(ParameterIn::Query, name, schema, about)
}

/// An optional header.
pub fn header(name: &str, schema: Value, about: &str) -> Parameter {
    parameter(ParameterIn::Header, name, schema, about)
}

/// The same parameter, required.
pub fn required(mut parameter: Parameter) -> Parameter {
    parameter.required = Required::True;
    parameter
}

/// `If-None-Match`: the version that the client already has.
pub struct Known;

impl IntoParams for Known {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let schema = json!({"type": "string", "examples": ["\"3\""]});
        let about = "The `ETag` that the client already has. If it is still current, the answer is 304 without a body.";
        vec![header("If-None-Match", schema, about)]
    }
}

fn parameter(place: ParameterIn, name: &str, json: Value, about: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Required::False)
        .description(Some(about))
        .schema(Some(schema(json)))
        .build()
}

/// The members of an object.
fn members(value: &mut Value) -> &mut Map<String, Value> {
    value.as_object_mut().expect("it is an object")
}
