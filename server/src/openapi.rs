//! `GET /openapi.json`: what the process serves, described; and the command that prints the whole.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use clap::Args;
use http_kit::client::if_none_match;
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::fields::{self, Fields};
use http_kit::openapi::{self, Fails, Refuses};
use http_kit::serve::limits;
use http_kit::text::{Language, Text};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::{self as described, RefOr};
use utoipa::{IntoParams, IntoResponses, OpenApi};

use crate::service::Roles;
use crate::{health, metrics};

const BODY_BYTES: usize = 1024;
const TIME: Duration = Duration::from_secs(10);

/// What every process serves, described.
#[derive(OpenApi)]
#[openapi(
    paths(health::live, health::ready, metrics::render, read),
    components(schemas(health::Readiness))
)]
struct Everywhere;

/// What a process with these roles serves.
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

#[derive(Debug, Args)]
pub(crate) struct OpenApiArgs {
    /// The language of the descriptions: en or tr
    #[arg(long, value_name = "LANGUAGE", default_value = "en", value_parser = language)]
    lang: Language,
}

fn language(name: &str) -> Result<Language, String> {
    Language::parse(name).ok_or_else(|| "one of en, tr".to_owned())
}

/// Prints the description of the whole service.
pub(crate) fn run(args: &OpenApiArgs) -> anyhow::Result<ExitCode> {
    let document = openapi::document(part(Roles::ALL), args.lang, "/");
    let mut printed = serde_json::to_string_pretty(&document)?;
    printed.push('\n');
    std::io::stdout().write_all(printed.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The description in a language, and its name.
struct Document {
    text: String,
    etag: String,
}

impl Document {
    fn new(roles: Roles, language: Language, server: &str) -> Self {
        let text = openapi::document(part(roles), language, server).to_string();
        let etag = format!("\"{}\"", hex::encode(Sha256::digest(&text)));
        Self { text, etag }
    }
}

/// The description in every language.
#[derive(Clone)]
struct Documents(Arc<[(Language, Document); 2]>);

/// `server` is where clients reach the service, if it was configured: what a request says of that goes nowhere.
pub(crate) fn router(roles: Roles, server: Option<&str>) -> Router {
    let documents = [Language::En, Language::Tr].map(|language| {
        (
            language,
            Document::new(roles, language, server.unwrap_or("/")),
        )
    });
    Router::new()
        .route("/openapi.json", limits(get(read), BODY_BYTES, TIME))
        .with_state(Documents(Arc::new(documents)))
}

/// Which language, and what the client has already.
struct Asked;

impl IntoParams for Asked {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let languages = json!({"type": "string", "enum": LANGUAGES, "default": LANGUAGES[0]});
        let known = "The `ETag` of what the client has already; if it is still that, the answer is 304 without a body.";
        vec![
            openapi::query("lang", languages, "The language of the descriptions."),
            openapi::header(
                "If-None-Match",
                json!({"type": "string", "examples": ["\"3\""]}),
                known,
            ),
        ]
    }
}

const LANGUAGES: [&str; 2] = ["en", "tr"];

impl Refuses for Asked {
    fn refusals() -> Vec<ApiError> {
        vec![ApiError::new(Code::ValidationFailed).field("lang", unknown_language())]
    }
}

fn unknown_language() -> Text {
    Text::new("NOT_ALLOWED").with("allowed", LANGUAGES.join(", "))
}

/// The document described.
struct Described;

impl IntoResponses for Described {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        let answers = [
            (
                "200",
                openapi::json(
                    "The document.",
                    json!({"type": "object", "required": ["openapi"], "properties": {"openapi": {"type": "string"}}}),
                ),
            ),
            ("304", openapi::described("The client has it already.")),
        ];
        BTreeMap::from(answers.map(|(status, answer)| {
            let answer = answer.header("ETag", openapi::answer_header("Names the bytes."));
            (status.to_owned(), answer.build().into())
        }))
    }
}

/// Read this document
///
/// A process that has one role describes what it serves.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getOpenApi",
    tag = "Operations",
    params(Asked),
    responses(Described, Fails<Asked>),
    security()
)]
async fn read(
    State(Documents(documents)): State<Documents>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut parameters = Fields::from_query(query.as_deref());
    let language = parameters.optional("lang", |value| {
        Language::parse(fields::string(value)?).ok_or_else(unknown_language)
    });
    parameters.finish()?;
    let language = language.unwrap_or_default();
    let (_, document) = documents
        .iter()
        .find(|(of, _)| *of == language)
        .expect("there is one in every language");
    // A newer program has another description.
    let named = [(ETAG, document.etag.as_str()), (CACHE_CONTROL, "no-cache")];
    if if_none_match(&headers, &document.etag) {
        return Ok((StatusCode::NOT_MODIFIED, named).into_response());
    }
    let form = [(CONTENT_TYPE, "application/json")];
    Ok((named, form, document.text.clone()).into_response())
}
