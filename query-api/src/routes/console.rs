//! `GET /console` and its files: a page for auditors. It is part of the binary, contacts only its own origin, and reads
//! with the token of its user.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use http_kit::error::ApiError;
use http_kit::file::{self, File};
use http_kit::hidden::brackets;
use http_kit::openapi::{self, Fails, Known, NotThere, schema};
use http_kit::text;
use serde_json::{Map, Value, json};
use utoipa::openapi::{self as described, RefOr, Schema};
use utoipa::{IntoResponses, PartialSchema};

use super::not_found;

/// The page may only run its own scripts and contact its own origin. A text can never become a script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// A file that is sent as it is kept.
macro_rules! kept {
    ($name:literal, $media_type:literal) => {
        (
            $name,
            File::new($media_type, include_str!(concat!("../console/", $name))),
        )
    };
}

/// The files of the page, by their names.
static FILES: LazyLock<[(&str, File); 13]> = LazyLock::new(|| {
    [
        kept!("style.css", "text/css; charset=utf-8"),
        kept!("icon.svg", "image/svg+xml"),
        kept!("api.js", "text/javascript; charset=utf-8"),
        kept!("app.js", "text/javascript; charset=utf-8"),
        kept!("badge.js", "text/javascript; charset=utf-8"),
        ("dom.js", File::new("text/javascript; charset=utf-8", dom())),
        kept!("health.js", "text/javascript; charset=utf-8"),
        kept!("live.js", "text/javascript; charset=utf-8"),
        kept!("moment.js", "text/javascript; charset=utf-8"),
        kept!("proof.js", "text/javascript; charset=utf-8"),
        kept!("search.js", "text/javascript; charset=utf-8"),
        (
            "texts.js",
            File::new("text/javascript; charset=utf-8", texts()),
        ),
        kept!("timeline.js", "text/javascript; charset=utf-8"),
    ]
});

static PAGE: LazyLock<File> = LazyLock::new(|| {
    let page = include_str!("../console/page.html");
    let page = page.replace(NO_SCRIPT, &text::in_every_language(NO_SCRIPT));
    File::new("text/html; charset=utf-8", page)
});

/// The message for a browser without JavaScript.
const NO_SCRIPT: &str = "This page needs JavaScript.";

/// The sentences of the page, in English.
fn english() -> Map<String, Value> {
    let texts = include_str!("../console/texts.json");
    serde_json::from_str(texts).expect("the file is an object of texts")
}

/// The script that shows texts of strangers, and the characters that it shows by their numbers: line breaks, tabs and
/// the joiner of emoji are shown as they are.
fn dom() -> String {
    let hidden = brackets(char::MAX, &['\t', '\n', '\u{200d}']);
    format!("const HIDDEN = /[{hidden}]/gu;\n") + include_str!("../console/dom.js")
}

/// The sentences of the page in every language, and the script that chooses among them.
fn texts() -> String {
    text::module(&english()) + include_str!("../console/texts.js")
}

/// Every English sentence of the page.
pub(crate) fn sentences() -> Vec<String> {
    let mut sentences = text::of_page(english());
    sentences.push(NO_SCRIPT.to_owned());
    sentences
}

/// The page for auditors
///
/// The page contacts only its own origin, and reads with the token of its user.
#[utoipa::path(
    get,
    path = "/console",
    operation_id = "getConsole",
    tag = "Operations",
    params(Known),
    responses(Page, Fails<()>),
    security()
)]
pub(super) async fn page(headers: HeaderMap) -> Response {
    answer(&PAGE, &headers)
}

/// A file of the page for auditors
#[utoipa::path(
    get,
    path = "/console/{file}",
    operation_id = "getConsoleFile",
    tag = "Operations",
    params(("file" = inline(FileName), Path, description = "The name of the file."), Known),
    responses(PageFile, Fails<NotThere>),
    security()
)]
pub(super) async fn file(
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let file = FILES.iter().find(|(of, _)| *of == name);
    file.map(|(_, file)| answer(file, &headers))
        .ok_or_else(not_found)
}

/// The names in [`FILES`].
struct FileName;

impl PartialSchema for FileName {
    fn schema() -> RefOr<Schema> {
        schema(json!({"type": "string", "enum": FILES.each_ref().map(|(name, _)| *name)}))
    }
}

/// The page described.
struct Page;

impl IntoResponses for Page {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        file::answers(openapi::bytes("The page.", &["text/html"]))
    }
}

/// Its files described.
struct PageFile;

impl IntoResponses for PageFile {
    fn responses() -> BTreeMap<String, RefOr<described::Response>> {
        let media_types = ["text/css", "image/svg+xml", "text/javascript"];
        file::answers(openapi::bytes("The file.", &media_types))
    }
}

fn answer(file: &File, headers: &HeaderMap) -> Response {
    file.answer_in_page(headers, &HeaderValue::from_static(POLICY))
}

#[cfg(test)]
mod tests {
    use events::UserEvent;
    use http_kit::testing::Ask;

    use super::*;
    use crate::changes;
    use crate::testing::Api;

    fn get(path: &str) -> Ask {
        Ask::new("GET", path)
    }

    #[tokio::test]
    async fn every_file_is_served_with_a_policy_that_lets_no_text_become_a_script() {
        let api = Api::still().await;
        let files = FILES.iter().map(|(name, _)| format!("/console/{name}"));
        for path in files.chain(["/console".to_owned()]) {
            let answer = api.send(get(&path)).await;
            assert_eq!(answer.status, 200, "{path}");
            let policy = answer.header("content-security-policy").unwrap();
            assert!(policy.starts_with("default-src 'none'; "), "{policy}");
            assert!(!policy.contains("unsafe"), "{policy}");
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "no-referrer"),
                ("cache-control", "no-cache"),
                ("cross-origin-resource-policy", "same-origin"),
            ] {
                assert_eq!(answer.header(name), Some(value), "{path}");
            }
        }
    }

    #[tokio::test]
    async fn a_browser_that_has_a_file_is_not_sent_it_again() {
        let api = Api::still().await;
        let first = api.send(get("/console/app.js")).await;
        let etag = first.header("etag").unwrap();
        let again = get("/console/app.js").header("if-none-match", etag);
        let again = api.send(again).await;
        assert_eq!((again.status, again.body.len()), (304, 0));
        assert_eq!(again.header("etag"), Some(etag));
        let other = get("/console/style.css").header("if-none-match", etag);
        assert_eq!(api.send(other).await.status, 200);
    }

    #[tokio::test]
    async fn the_page_asks_for_nothing_that_is_not_served_and_for_nothing_elsewhere() {
        let api = Api::still().await;
        let files = FILES.iter().map(|(name, _)| format!("/console/{name}"));
        for path in files.chain(["/console".to_owned()]) {
            let served = api.send(get(&path)).await.body;
            let text = std::str::from_utf8(&served).unwrap();
            for scheme in ["http:", "https:", "ws:", "wss:"] {
                // The name of the language of pictures is no address.
                let text = text.replace("http://www.w3.org/2000/svg", "");
                assert!(!text.contains(&format!("{scheme}//")), "{path}");
            }
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(!text.contains(forbidden), "{path}: {forbidden}");
            }
            let asked = text
                .match_indices("from \"./")
                .chain(text.match_indices("\"console/"));
            for (at, what) in asked {
                let name = text[at + what.len()..].split('"').next().unwrap();
                // `console/token` is no file; only development mode has it.
                let is_served = FILES.iter().any(|(of, _)| *of == name);
                assert!(is_served || name == "token", "{name}");
            }
        }
    }

    #[test]
    fn the_page_names_every_event_type_and_reads_its_changes() {
        let sentences: Value = serde_json::from_str(include_str!("../console/texts.json")).unwrap();
        let named: Vec<_> = sentences["events"].as_object().unwrap().keys().collect();
        assert_eq!(named, UserEvent::TYPES, "console/texts.json, `events`");
        let proof = include_str!("../console/proof.js");
        for shape in events::schema::all() {
            let is_read = proof.contains(&format!("\"{}/{}\": (data)", shape.name, shape.version));
            let is_event = shape.name != events::schema::ENVELOPE;
            assert_eq!(
                is_read, is_event,
                "console/proof.js, CHANGES: {}",
                shape.name
            );
        }
    }

    #[test]
    fn the_page_names_every_member_of_a_profile() {
        let sentences: Value = serde_json::from_str(include_str!("../console/texts.json")).unwrap();
        let example = changes::object(&http_kit::profile::example().profile);
        for member in example.keys() {
            assert!(
                sentences["fields"][member].is_string(),
                "console/texts.json, `fields`: {member}"
            );
        }
    }

    #[tokio::test]
    async fn the_page_speaks_every_language() {
        let api = Api::still().await;
        let texts = api.send(get("/console/texts.js")).await.body;
        let texts = std::str::from_utf8(&texts).unwrap();
        assert!(
            texts.starts_with("export const texts = {\"en\":{\"skip\":\"Skip to the history\"")
        );
        assert!(texts.contains("\"skip\":\"Geçmişe atla\""));
        let page = api.send(get("/console")).await.body;
        let page = std::str::from_utf8(&page).unwrap();
        assert!(page.contains("This page needs JavaScript. · Bu sayfa JavaScript gerektirir."));
    }
}
