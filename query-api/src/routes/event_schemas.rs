//! `GET /schemas/<type>/<version>.json` and `GET /asyncapi.json`: the schemas of events, and how to follow events. Both
//! are public. They do not depend on this installation, so neither `Host` nor another value from a client becomes part
//! of them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::extract::{Path, RawQuery};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use events::schema;
use http_kit::error::ApiError;
use http_kit::file::{self, File};
use http_kit::in_language::InLanguage;
use http_kit::openapi::{self, Fails, Known, NotThere, schema as described_by};
use http_kit::text::{Language, Text};
use serde_json::json;
use utoipa::openapi::{self as described, RefOr, Schema};
use utoipa::{IntoResponses, PartialSchema};

use super::not_found;
use crate::asyncapi::{document, translate};

/// A document changes only with the program.
const CACHED: &str = "public, max-age=3600";

/// The schema of an event in a language.
struct EventSchema {
    name: &'static str,
    /// The last part of its path.
    version: String,
    language: Language,
    file: File,
}

static SCHEMAS: LazyLock<Vec<EventSchema>> = LazyLock::new(|| {
    let schemas = schema::all().into_iter().flat_map(|mut published| {
        Language::ALL.map(|language| {
            translate(&mut published.schema, language);
            EventSchema {
                name: published.name,
                version: format!("{}.json", published.version),
                language,
                file: File::new("application/schema+json", published.text()),
            }
        })
    });
    schemas.collect()
});

static ASYNCAPI: LazyLock<[(Language, File); 2]> = LazyLock::new(|| {
    let file = |language| File::new("application/json", document(language));
    Language::ALL.map(|language| (language, file(language)))
});

fn answer(file: &File, asked: &HeaderMap) -> Response {
    let mut response = file.answer(asked);
    let cached = HeaderValue::from_static(CACHED);
    response.headers_mut().insert(CACHE_CONTROL, cached);
    response
}

/// Read the schema of an event
///
/// The JSON Schema of the body of one type and version of event, or of the envelope. Events name theirs in
/// `dataschema`.
#[utoipa::path(
    get,
    path = "/schemas/{type}/{version}",
    operation_id = "getSchema",
    tag = "Events",
    params(
        ("type" = inline(TypeName), Path, description = "The type of event, or `envelope`."),
        ("version" = inline(FileName), Path, description = "The version, and `.json`."),
        InLanguage,
        Known
    ),
    responses(SchemaFile, Fails<(NotThere, InLanguage)>),
    security()
)]
pub(super) async fn schema(
    Path((name, file)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let language = InLanguage::of(query.as_deref())?;
    let named = |schema: &&EventSchema| schema.language == language && schema.name == name;
    let versions: Vec<_> = SCHEMAS.iter().filter(named).collect();
    let found = versions.iter().find(|schema| schema.version == file);
    let found = found.ok_or_else(|| {
        if versions.is_empty() {
            let of_one = SCHEMAS.iter().filter(|schema| schema.language == language);
            unknown("NO_SUCH_EVENT_TYPE", of_one.map(|schema| schema.name))
        } else {
            let files = versions.iter().map(|schema| schema.version.as_str());
            unknown("NO_SUCH_SCHEMA_VERSION", files)
        }
    })?;
    Ok(answer(&found.file, &headers))
}

/// Read how to follow events
///
/// The AsyncAPI document: the subjects, headers and bodies of events over NATS JetStream, and of the stream over HTTP.
#[utoipa::path(
    get,
    path = "/asyncapi.json",
    operation_id = "getAsyncApi",
    tag = "Events",
    params(InLanguage, Known),
    responses(Document, Fails<InLanguage>),
    security()
)]
pub(super) async fn asyncapi(
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let language = InLanguage::of(query.as_deref())?;
    let (_, document) = ASYNCAPI
        .iter()
        .find(|(of, _)| *of == language)
        .expect("there is one in every language");
    Ok(answer(document, &headers))
}

/// The event types with a schema.
struct TypeName;

impl PartialSchema for TypeName {
    fn schema() -> RefOr<Schema> {
        let mut names: Vec<_> = SCHEMAS.iter().map(|schema| schema.name).collect();
        names.dedup();
        described_by(json!({"type": "string", "enum": names}))
    }
}

/// The last parts of the paths of schemas.
struct FileName;

impl PartialSchema for FileName {
    fn schema() -> RefOr<Schema> {
        let mut files: Vec<_> = SCHEMAS
            .iter()
            .map(|schema| schema.version.as_str())
            .collect();
        files.sort_unstable();
        files.dedup();
        described_by(json!({"type": "string", "enum": files}))
    }
}

/// A schema in the OpenAPI document.
struct SchemaFile;

impl IntoResponses for SchemaFile {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        file::answers(openapi::bytes("The schema.", &["application/schema+json"]))
    }
}

/// The AsyncAPI document in the OpenAPI document.
struct Document;

impl IntoResponses for Document {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        file::answers(openapi::bytes("The document.", &["application/json"]))
    }
}

/// 404 with the names that exist.
fn unknown<'a>(key: &'static str, known: impl Iterator<Item = &'a str>) -> ApiError {
    let mut known: Vec<_> = known.collect();
    known.dedup();
    not_found().because(Text::new(key).with("known", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use http_kit::testing::{Ask, refuses};
    use serde_json::Value;

    use super::*;
    use crate::testing::Api;

    fn get(path: &str) -> Ask {
        Ask::new("GET", path)
    }

    #[tokio::test]
    async fn every_schema_is_at_the_address_that_its_events_name() {
        let api = Api::still().await;
        for published in schema::all() {
            let answer = api.send(get(&published.path())).await;
            assert_eq!(answer.status, 200, "{}", published.path());
            assert_eq!(answer.body, published.text());
            assert_eq!(answer.json()["$id"], published.path());
            for (name, value) in [
                ("content-type", "application/schema+json"),
                ("cache-control", "public, max-age=3600"),
                ("x-content-type-options", "nosniff"),
            ] {
                assert_eq!(answer.header(name), Some(value));
            }
            let event: Value = serde_json::from_str(published.example).unwrap();
            let dataschema = event["dataschema"].as_str().unwrap();
            assert_eq!(api.send(get(dataschema)).await.status, 200);
        }
    }

    #[tokio::test]
    async fn a_client_that_has_a_document_is_not_sent_it_again() {
        let api = Api::still().await;
        for path in ["/schemas/user-registered/1.json", "/asyncapi.json"] {
            let first = api.send(get(path)).await;
            let etag = first.header("etag").unwrap();
            let again = api.send(get(path).header("if-none-match", etag)).await;
            assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
            assert_eq!(again.header("etag"), Some(etag));
            let turkish = get(&format!("{path}?lang=tr")).header("if-none-match", etag);
            assert_eq!(api.send(turkish).await.status, 200, "it has another tag");
        }
    }

    #[tokio::test]
    async fn documents_are_in_the_language_that_is_asked_for() {
        let api = Api::still().await;
        let told = async |path: &str| {
            let json = api.send(get(path)).await.json();
            let of_all = json["info"]["description"].as_str();
            of_all.or(json["description"].as_str()).unwrap().to_owned()
        };
        let path = "/schemas/user-registered/1.json";
        assert_eq!(told(path).await, "The user was registered.");
        let english = told(&format!("{path}?lang=en")).await;
        assert_eq!(english, "The user was registered.");
        let turkish = told(&format!("{path}?lang=tr")).await;
        assert_eq!(turkish, "Kullanıcı kaydedildi.");
        assert_eq!(
            told("/asyncapi.json").await,
            told("/asyncapi.json?lang=en").await
        );
        let turkish = told("/asyncapi.json?lang=tr").await;
        assert!(turkish.starts_with("Kullanıcıların olayları"), "{turkish}");
    }

    #[tokio::test]
    async fn a_type_or_version_that_is_not_there_is_refused_with_those_that_are() {
        let api = Api::still().await;
        let code = "RESOURCE_NOT_FOUND";
        let types = format!("{}, envelope.", events::UserEvent::TYPES.join(", "));
        let long = "x".repeat(30_000);
        for name in ["user-deleted", "User-Registered", "%00", "..%2f..", &long] {
            let english = format!("There is no schema of this name; there are: {types}");
            let turkish = format!("Bu adda bir şema yok; olanlar: {types}");
            let (english, turkish) = (
                ["Resource not found", &english],
                ["Kaynak bulunamadı", &turkish],
            );
            let ask = get(&format!("/schemas/{name}/1.json"));
            refuses(&api.router, &ask, 404, code, &english, &turkish).await;
        }
        for file in [
            "2.json",
            "0.json",
            "01.json",
            "1",
            "1.json%00",
            "..%2f1.json",
        ] {
            let english = [
                "Resource not found",
                "There is no such version of this schema; there are: 1.json.",
            ];
            let turkish = [
                "Kaynak bulunamadı",
                "Bu şemanın böyle bir sürümü yok; olanlar: 1.json.",
            ];
            let ask = get(&format!("/schemas/photo-changed/{file}"));
            refuses(&api.router, &ask, 404, code, &english, &turkish).await;
        }
    }

    #[tokio::test]
    async fn a_hostile_language_is_refused_by_name() {
        let api = Api::still().await;
        let code = "VALIDATION_FAILED";
        let (allowed, olasi) = (
            "lang: must be one of: en, tr",
            "lang: şunlardan biri olmalıdır: en, tr",
        );
        let (twice, iki) = (
            "lang: is given more than once",
            "lang: birden fazla kez verilmiş",
        );
        let (coded, kod) = (
            "lang: is not valid percent-encoded UTF-8",
            "lang: geçerli, yüzde kodlamalı UTF-8 değil",
        );
        let (unknown, bilinmeyen) = (
            "language: is not a known field",
            "language: bilinen bir alan değil",
        );
        let long = format!("lang={}", "x".repeat(20_000));
        for (query, english, turkish) in [
            ("lang=de", allowed, olasi),
            ("lang=", allowed, olasi),
            ("lang=TR", allowed, olasi),
            ("lang=tr%00", allowed, olasi),
            ("lang=..%2f..%2fetc%2fpasswd", allowed, olasi),
            ("lang=%3Cscript%3E", allowed, olasi),
            (&long, allowed, olasi),
            ("lang=tr&lang=en", twice, iki),
            ("lang=%ff", coded, kod),
            ("language=tr", unknown, bilinmeyen),
        ] {
            let english = ["Validation failed", english];
            let turkish = ["Doğrulama başarısız", turkish];
            for path in ["/asyncapi.json", "/schemas/user-registered/1.json"] {
                let ask = get(&format!("{path}?{query}"));
                refuses(&api.router, &ask, 400, code, &english, &turkish).await;
            }
        }
    }

    #[tokio::test]
    async fn nothing_that_a_client_says_of_itself_changes_a_document() {
        let api = Api::still().await;
        for path in ["/asyncapi.json", "/schemas/envelope/1.json"] {
            let plain = api.send(get(path)).await;
            for (name, value) in [
                ("host", &b"evil.example"[..]),
                ("host", b"\"><script>"),
                ("host", b"\xff"),
                ("x-forwarded-host", b"evil.example"),
                ("forwarded", b"host=evil.example;proto=gopher"),
                ("x-language", b"tr"),
                ("accept-language", b"tr"),
                ("authorization", b"Bearer garbage"),
            ] {
                let answer = api.send(get(path).header(name, value)).await;
                assert_eq!(answer.status, 200, "{path} {name}");
                assert_eq!(answer.body, plain.body, "{path} {name}");
                assert_eq!(answer.header("etag"), plain.header("etag"));
            }
            assert_eq!(api.send(get(path)).await.body, plain.body);
        }
    }
}
