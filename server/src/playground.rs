//! `GET /docs` and its files: a page that shows the API and tries it out, on this server and on configured ones. It is
//! part of the binary and contacts only these servers.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;
use flate2::read::GzDecoder;
use http_kit::code::Code;
use http_kit::error::ApiError;
use http_kit::file::{self, File};
use http_kit::in_language::InLanguage;
use http_kit::openapi::{self, Fails, Known, NotThere, schema};
use http_kit::serve::limits;
use http_kit::text;
use serde_json::{Map, Value, json};
use utoipa::openapi::{self as described, RefOr, Schema};
use utoipa::{IntoResponses, PartialSchema};

use crate::config::ApiServer;

const BODY_BYTES: usize = 1024;
const TIME: Duration = Duration::from_secs(10);

/// The published component that shows the API. `playground/scalar/README.md` has its origin.
const SCALAR: &[u8] = include_bytes!("playground/scalar/scalar-api-reference-1.72.1.js.gz");

const SCRIPT: &str = "text/javascript; charset=utf-8";

static SCALAR_PACKED: LazyLock<File> = LazyLock::new(|| File::new(SCRIPT, SCALAR));

/// The same for browsers that do not accept gzip.
static SCALAR_PLAIN: LazyLock<File> = LazyLock::new(|| {
    let mut plain = Vec::new();
    let read = GzDecoder::new(SCALAR).read_to_end(&mut plain);
    read.expect("a test reads the whole file");
    File::new(SCRIPT, plain)
});

/// The files of the page. Their order is that of the description.
const FILES: [&str; 5] = [
    "app.js",
    "scalar.js",
    "settings.json",
    "style.css",
    "texts.js",
];

/// The message for a browser without JavaScript.
const NO_SCRIPT: &str = "This page needs JavaScript.";

/// The sentences of the page and of its component, in English. Of the component, these are the sentences that the page
/// can show.
fn english() -> Map<String, Value> {
    let texts = include_str!("playground/texts.json");
    serde_json::from_str(texts).expect("the file is an object of texts")
}

/// What the page may do: run its own scripts, and ask this server and the configured ones. The component makes elements
/// with styles of their own as it draws, so styles may stand in the page; scripts may not.
fn policy(servers: &[ApiServer]) -> HeaderValue {
    let servers = servers.iter().map(|server| format!(" {}", server.source()));
    let servers: String = servers.collect();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
         media-src blob:; connect-src 'self'{servers}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("servers are parsed strictly")
}

/// The page and its files, by their names.
pub(super) struct Playground {
    policy: HeaderValue,
    page: File,
    files: [(&'static str, File); 4],
}

impl Playground {
    fn new(servers: &[ApiServer], has_token: bool) -> Self {
        let described: Vec<_> = servers
            .iter()
            .map(|server| json!({"name": server.name, "url": server.url}))
            .collect();
        let settings = json!({"servers": described, "hasToken": has_token});
        let page = include_str!("playground/page.html");
        let page = page.replace(NO_SCRIPT, &text::in_every_language(NO_SCRIPT));
        let style = include_str!("playground/style.css");
        Self {
            policy: policy(servers),
            page: File::new("text/html; charset=utf-8", page),
            files: [
                (
                    "app.js",
                    File::new(SCRIPT, include_str!("playground/app.js")),
                ),
                (
                    "settings.json",
                    File::new("application/json", settings.to_string()),
                ),
                ("style.css", File::new("text/css; charset=utf-8", style)),
                ("texts.js", File::new(SCRIPT, text::module(&english()))),
            ],
        }
    }

    /// A file, if it is there.
    fn file(&self, name: &str, headers: &HeaderMap) -> Option<Response> {
        if name == "scalar.js" {
            return Some(self.scalar(headers));
        }
        let (_, file) = self.files.iter().find(|(of, _)| *of == name)?;
        Some(file.answer_in_page(headers, &self.policy))
    }

    fn scalar(&self, headers: &HeaderMap) -> Response {
        let is_packed = takes_gzip(headers);
        let file = if is_packed {
            &SCALAR_PACKED
        } else {
            &SCALAR_PLAIN
        };
        let mut response = file.answer_in_page(headers, &self.policy);
        let is_sent = response.status() == StatusCode::OK;
        let told = response.headers_mut();
        told.insert(VARY, HeaderValue::from_static("accept-encoding"));
        if is_packed && is_sent {
            told.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// Whether `Accept-Encoding` names gzip and does not refuse it.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter();
    let mut codings = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_named = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let is_refused = parts.any(|parameter| {
            let quality = parameter.strip_prefix("q=").map(str::parse::<f32>);
            quality.is_some_and(|quality| !quality.is_ok_and(|quality| quality > 0.0))
        });
        is_named && !is_refused
    })
}

/// The page, with the other servers that it offers. `has_token`: [`crate::dev`] serves a token for it.
pub(crate) fn router(servers: &[ApiServer], has_token: bool) -> Router {
    Router::new()
        .route("/docs", limits(get(read), BODY_BYTES, TIME))
        .route("/docs/{file}", limits(get(file), BODY_BYTES, TIME))
        .with_state(Arc::new(Playground::new(servers, has_token)))
}

/// The page that tries the API out
///
/// The page shows this document and sends requests to this server and to the servers that the operator configured.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "getDocs",
    tag = "Operations",
    params(InLanguage, Known),
    responses(Page, Fails<InLanguage>),
    security()
)]
pub(super) async fn read(
    State(playground): State<Arc<Playground>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    // The script of the page reads the parameter itself.
    let _language = InLanguage::of(query.as_deref())?;
    Ok(playground.page.answer_in_page(&headers, &playground.policy))
}

/// A file of the page that tries the API out
#[utoipa::path(
    get,
    path = "/docs/{file}",
    operation_id = "getDocsFile",
    tag = "Operations",
    params(("file" = inline(FileName), Path, description = "The name of the file."), Known),
    responses(PageFile, Fails<NotThere>),
    security()
)]
pub(super) async fn file(
    State(playground): State<Arc<Playground>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let file = playground.file(&name, &headers);
    file.ok_or_else(|| ApiError::new(Code::NotFound))
}

/// The names in [`FILES`].
struct FileName;

impl PartialSchema for FileName {
    fn schema() -> RefOr<Schema> {
        schema(json!({"type": "string", "enum": FILES}))
    }
}

/// The description of the page.
struct Page;

impl IntoResponses for Page {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        file::answers(openapi::bytes("The page.", &["text/html"]))
    }
}

/// The description of a file of the page.
struct PageFile;

impl IntoResponses for PageFile {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        let media_types = ["text/javascript", "application/json", "text/css"];
        file::answers(openapi::bytes("The file.", &media_types))
    }
}

/// Every English sentence of the page.
#[cfg(test)]
pub(crate) fn sentences() -> Vec<String> {
    let mut sentences = text::of_page(english());
    sentences.push(NO_SCRIPT.to_owned());
    sentences
}

#[cfg(test)]
mod tests;
