//! `GET /console` and its files: a page for auditors. It is part of the binary, asks no other origin for
//! anything, and reads with the token that its reader gives it.

use std::collections::BTreeMap;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use http_kit::error::ApiError;
use http_kit::file::{self, File};
use http_kit::openapi::{self, Fails, Known, NotThere, schema};
use serde_json::json;
use utoipa::openapi::{self as described, RefOr, Schema};
use utoipa::{IntoResponses, PartialSchema};

use super::not_found;

/// What the page may do: nothing but run its own scripts and ask its own origin. No script can be made
/// from a text, whatever the text is.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// What a file of the page is made of.
struct Kept {
    name: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
}

/// A file that is kept under its own name.
macro_rules! file {
    ($name:literal, $media_type:literal) => {
        Kept {
            name: $name,
            media_type: $media_type,
            bytes: include_bytes!(concat!("../console/", $name)),
        }
    };
}

const PAGE: Kept = file!("page.html", "text/html; charset=utf-8");

const FILES: [Kept; 13] = [
    file!("style.css", "text/css; charset=utf-8"),
    file!("icon.svg", "image/svg+xml"),
    file!("api.js", "text/javascript; charset=utf-8"),
    file!("app.js", "text/javascript; charset=utf-8"),
    file!("badge.js", "text/javascript; charset=utf-8"),
    file!("dom.js", "text/javascript; charset=utf-8"),
    file!("health.js", "text/javascript; charset=utf-8"),
    file!("live.js", "text/javascript; charset=utf-8"),
    file!("moment.js", "text/javascript; charset=utf-8"),
    file!("proof.js", "text/javascript; charset=utf-8"),
    file!("search.js", "text/javascript; charset=utf-8"),
    file!("texts.js", "text/javascript; charset=utf-8"),
    file!("timeline.js", "text/javascript; charset=utf-8"),
];

/// The page for auditors
///
/// It asks no other origin for anything, and reads with the token that its reader gives it.
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
    PAGE.answer(&headers)
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
    let file = FILES.iter().find(|file| file.name == name);
    file.map(|file| file.answer(&headers)).ok_or_else(not_found)
}

/// The names in [`FILES`].
struct FileName;

impl PartialSchema for FileName {
    fn schema() -> RefOr<Schema> {
        schema(json!({"type": "string", "enum": FILES.map(|file| file.name)}))
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

impl Kept {
    fn answer(&self, headers: &HeaderMap) -> Response {
        let file = File::new(self.media_type, self.bytes);
        file.answer_in_page(headers, &HeaderValue::from_static(POLICY))
    }
}

#[cfg(test)]
mod tests {
    use http_kit::testing::Ask;

    use super::*;
    use crate::testing::Api;

    fn get(path: &str) -> Ask {
        Ask::new("GET", path)
    }

    #[tokio::test]
    async fn every_file_is_served_with_a_policy_that_lets_no_text_become_a_script() {
        let api = Api::still().await;
        let files = FILES.iter().map(|file| format!("/console/{}", file.name));
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

    #[test]
    fn the_page_asks_for_nothing_that_is_not_served_and_for_nothing_elsewhere() {
        for file in FILES.iter().chain([&PAGE]) {
            let text = std::str::from_utf8(file.bytes).unwrap();
            for scheme in ["http:", "https:", "ws:", "wss:"] {
                // The name of the language of pictures is no address.
                let text = text.replace("http://www.w3.org/2000/svg", "");
                assert!(!text.contains(&format!("{scheme}//")), "{}", file.name);
            }
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(!text.contains(forbidden), "{}: {forbidden}", file.name);
            }
            let asked = text
                .match_indices("from \"./")
                .chain(text.match_indices("\"console/"));
            for (at, what) in asked {
                let name = text[at + what.len()..].split('"').next().unwrap();
                // `console/token` is no file; only development mode has it.
                let is_served = FILES.iter().any(|file| file.name == name);
                assert!(is_served || name == "token", "{name}");
            }
        }
    }
}
