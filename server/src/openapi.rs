//! `GET /openapi.json`: the description of what the process serves.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::file::{self, File};
use http_kit::in_language::InLanguage;
use http_kit::openapi::{self, Fails, Known};
use http_kit::serve::limits;
use http_kit::text::Language;
use serde_json::{Value, json};
use utoipa::openapi::{self as described, RefOr};
use utoipa::{IntoResponses, OpenApi};

use crate::roles::Roles;
use crate::{health, metrics, playground};

const BODY_BYTES: usize = 1024;
const TIME: Duration = Duration::from_secs(10);

/// The routes of every process.
#[derive(OpenApi)]
#[openapi(
    paths(
        health::live,
        health::ready,
        metrics::render,
        read,
        playground::read,
        playground::file
    ),
    components(schemas(health::Readiness))
)]
struct Everywhere;

/// The routes of a process with these roles.
fn part(roles: Roles) -> described::OpenApi {
    let mut part = described::OpenApi::default();
    if roles.commands {
        part.merge(command_api::openapi());
    }
    if roles.queries {
        part.merge(query_api::openapi());
    }
    part.merge(Everywhere::openapi());
    part
}

/// The description of a process with these roles. `server` is the base URL of its paths.
pub(crate) fn document(roles: Roles, language: Language, server: &str) -> Value {
    openapi::document(part(roles), language, server)
}

/// The description in every language. The first request for a language makes it, because making it takes more memory than
/// an idle process needs.
type Documents = [(Language, Document); 2];
type Document = LazyLock<File, Box<dyn FnOnce() -> File + Send>>;

/// `server` is the configured base URL of the service. Nothing that a request claims about it is used.
pub(crate) fn router(roles: Roles, server: Option<&str>) -> Router {
    let documents: Documents = Language::ALL.map(|language| {
        let server = server.unwrap_or("/").to_owned();
        let document = move || {
            let document = document(roles, language, &server);
            File::new("application/json", document.to_string())
        };
        (language, Document::new(Box::new(document)))
    });
    Router::new()
        .route("/openapi.json", limits(get(read), BODY_BYTES, TIME))
        .with_state(Arc::new(documents))
}

/// The document in the OpenAPI document.
struct Described;

impl IntoResponses for Described {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        let schema = json!({"type": "object", "required": ["openapi"], "properties": {"openapi": {"type": "string"}}});
        let example = json!({"openapi": "3.1.0"});
        file::answers(openapi::json("The document.", schema, example))
    }
}

/// Read this document
///
/// A process with one role describes only its own routes.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getOpenApi",
    tag = "Operations",
    params(InLanguage, Known),
    responses(Described, Fails<InLanguage>),
    security()
)]
async fn read(
    State(documents): State<Arc<Documents>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let language = InLanguage::of(query.as_deref())?;
    let answer = move || {
        let (_, document) = documents
            .iter()
            .find(|(of, _)| *of == language)
            .expect("there is one in every language");
        document.answer(&headers)
    };
    // Making the document takes so long that it would delay other requests.
    tokio::task::spawn_blocking(answer)
        .await
        .map_err(|_| ApiError::new(Code::Internal))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http_kit::openapi::operations;
    use http_kit::text;

    use super::*;

    fn document(roles: Roles, language: Language) -> Value {
        super::document(roles, language, "/")
    }

    /// Visits every sentence that a person reads, and takes it away.
    fn take_sentences(value: &mut Value, taken: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match (name.as_str(), &mut *value) {
                        ("description" | "summary", Value::String(sentence)) => {
                            taken.push(std::mem::take(sentence));
                        }
                        ("example" | "default" | "enum", _) => {}
                        // Those of failures are in the language, too.
                        ("examples", Value::Object(examples)) => examples.clear(),
                        _ => take_sentences(value, taken),
                    }
                }
            }
            Value::Array(items) => items
                .iter_mut()
                .for_each(|item| take_sentences(item, taken)),
            _ => {}
        }
    }

    #[test]
    fn every_sentence_of_the_service_is_translated_and_no_translation_is_left_over() {
        let (mut english, mut turkish) = (Vec::new(), Vec::new());
        let mut in_english = document(Roles::ALL, Language::En);
        let mut in_turkish = document(Roles::ALL, Language::Tr);
        take_sentences(&mut in_english, &mut english);
        take_sentences(&mut in_turkish, &mut turkish);
        assert_eq!(in_english, in_turkish, "only sentences differ");
        assert_eq!(english.len(), turkish.len());

        let paragraphs = english.iter().flat_map(|text| text.split("\n\n"));
        let mut used: BTreeSet<String> = paragraphs.map(str::to_owned).collect();
        used.extend(query_api::sentences());
        used.extend(playground::sentences());
        used.extend(text::of_failures().map(str::to_owned));
        let translated: BTreeSet<String> = text::translated().map(str::to_owned).collect();
        let missing: Vec<_> = used.difference(&translated).collect();
        assert_eq!(missing, [""; 0], "not in http-kit/src/text/turkish.json");
        let left: Vec<_> = translated.difference(&used).collect();
        assert_eq!(left, [""; 0], "no longer used");
    }

    #[test]
    fn examples_of_failures_are_in_the_language() {
        let of = |language| {
            let document = document(Roles::ALL, language);
            let example = &document["components"]["examples"]["AUTHENTICATION_REQUIRED"];
            example["value"]["errors"].clone()
        };
        assert_eq!(of(Language::En), json!(["Authentication required"]));
        assert_eq!(of(Language::Tr), json!(["Kimlik doğrulaması gerekli"]));
    }

    #[test]
    fn operations_that_clients_know_by_name_have_their_names() {
        let document = document(Roles::ALL, Language::En);
        for (method, path, name) in [
            ("post", "", "registerUserV1"),
            ("get", "/profile", "getUsersProfileV1"),
            ("put", "/profile", "updateUsersProfileV1"),
            ("patch", "/profile/photo", "updateUsersProfilePhotoV1"),
            ("patch", "/username", "updateUsersUsernameV1"),
            ("get", "/profile/{userId}", "getUsersProfileByUseridV1"),
            (
                "get",
                "/profile/username/{username}",
                "getUsersProfileUsernameByUsernameV1",
            ),
            ("post", "/check-username", "checkUsersUsernameV1"),
            ("get", "/search", "searchUsersV1"),
        ] {
            let operation = &document["paths"][format!("/api/v1/users{path}")][method];
            assert_eq!(operation["operationId"], name);
        }
    }

    #[test]
    fn every_failure_is_described_in_both_forms_with_an_example_and_its_code() {
        let document = document(Roles::ALL, Language::En);
        let mut seen = 0;
        for (path, method, operation) in operations(&document["paths"]) {
            for (status, answer) in operation["responses"].as_object().unwrap() {
                let shared = answer["$ref"].as_str().map(|reference| &reference[1..]);
                let answer = shared.map_or(answer, |at| document.pointer(at).unwrap());
                // What is not ready says what is missing, in a form of its own.
                if !status.starts_with(['4', '5']) || path == "/readyz" && status == "503" {
                    continue;
                }
                seen += 1;
                let described = format!("{method} {path} {status}");
                assert!(answer["headers"]["X-Error-Code"].is_object(), "{described}");
                let forms = answer["content"].as_object().unwrap();
                assert_eq!(forms.len(), 2, "{described}");
                for form in ["application/json", "application/problem+json"] {
                    let examples = forms[form]["examples"].as_object();
                    assert!(
                        examples.is_some_and(|all| !all.is_empty()),
                        "{described} {form}"
                    );
                }
            }
        }
        assert!(seen > 100, "{seen}");
    }

    #[test]
    fn every_answer_that_has_a_shape_has_an_example() {
        let document = document(Roles::ALL, Language::En);
        let mut without = Vec::new();
        for (path, method, operation) in operations(&document["paths"]) {
            for (status, answer) in operation["responses"].as_object().unwrap() {
                let shared = answer["$ref"].as_str().map(|reference| &reference[1..]);
                let answer = shared.map_or(answer, |at| document.pointer(at).unwrap());
                let contents = answer["content"].as_object().into_iter().flatten();
                let is_without = |content: &Value| {
                    content["schema"].is_object()
                        && content["example"].is_null()
                        && content["examples"].is_null()
                };
                for (media_type, _) in contents.filter(|(_, content)| is_without(content)) {
                    without.push(format!("{method} {path} {status} {media_type}"));
                }
            }
        }
        assert_eq!(without, [""; 0]);
    }

    #[test]
    fn a_role_describes_its_own_part() {
        let of = |roles| -> BTreeSet<(String, String)> {
            let document = document(roles, Language::En);
            operations(&document["paths"])
                .map(|(path, method, _)| (path.to_owned(), method.to_owned()))
                .collect()
        };
        let (whole, commands) = (of(Roles::ALL), of(Roles::COMMANDS));
        let (queries, projection) = (of(Roles::QUERIES), of(Roles::PROJECTION));
        let profile = |method: &str| ("/api/v1/users/profile".to_owned(), method.to_owned());
        assert!(commands.contains(&profile("put")) && !commands.contains(&profile("get")));
        assert!(queries.contains(&profile("get")) && !queries.contains(&profile("put")));
        let everywhere = [
            "/docs",
            "/docs/{file}",
            "/healthz",
            "/metrics",
            "/openapi.json",
            "/readyz",
        ];
        let of_projection: Vec<_> = projection.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(of_projection, everywhere);
        let parts: BTreeSet<_> = commands.union(&queries).cloned().collect();
        assert_eq!(parts, whole);
        for tag in document(Roles::COMMANDS, Language::En)["tags"]
            .as_array()
            .unwrap()
        {
            assert_ne!(tag["name"], "Audit", "a tag without operations");
        }
    }
}
