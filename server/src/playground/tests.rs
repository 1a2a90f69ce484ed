use axum::body::{Body, Bytes};
use axum::http::Request;
use http_kit::clock::Clock;
use http_kit::serve::harden;
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;

use super::*;

/// What the files of `playground/scalar` are, by its `README.md`.
const SCALAR_SHA256: &str = "6a0ed777c400b043c6139380feb657ab720bb602585dd9becb1d9ca5f0980179";
const PLAIN_SHA256: &str = "bf091006bdc3af6067af77c2f534812e3e633e94a94e87138069f570f33b762c";

async fn get(path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Bytes) {
    let servers = ["Production=https://api.example.com", "Test=http://a.test/b"];
    let servers = servers.map(|text| ApiServer::parse(text).unwrap());
    let router = harden(router(&servers, true), Clock::system());
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = router.oneshot(request.body(Body::empty()).unwrap()).await;
    let (parts, body) = answer.unwrap().into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, parts.headers, body)
}

fn told<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn every_file_is_served_with_a_policy_that_names_the_servers_and_nothing_else() {
    let files = FILES.map(|name| format!("/docs/{name}"));
    let pages = ["/docs", "/docs?lang=en", "/docs?lang=tr"].map(str::to_owned);
    for path in files.into_iter().chain(pages) {
        let (status, headers, _) = get(&path, &[]).await;
        assert_eq!(status, 200, "{path}");
        let policy = told(&headers, "content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; "));
        let servers = "connect-src 'self' https://api.example.com http://a.test/b/; ";
        assert!(policy.contains(servers), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe-eval") && !policy.contains('*'));
        assert_eq!(policy.matches("unsafe").count(), 1, "only styles: {policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-cache"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(told(&headers, name), value, "{path}");
        }
    }
}

#[tokio::test]
async fn the_page_is_told_the_servers_and_whether_there_is_a_token() {
    let (_, _, settings) = get("/docs/settings.json", &[]).await;
    let settings: serde_json::Value = serde_json::from_slice(&settings).unwrap();
    let servers = json!([
        {"name": "Production", "url": "https://api.example.com"},
        {"name": "Test", "url": "http://a.test/b"},
    ]);
    assert_eq!(settings, json!({"servers": servers, "hasToken": true}));
}

#[tokio::test]
async fn a_hostile_language_or_host_changes_nothing_but_its_own_answer() {
    let (_, plain, page) = get("/docs", &[]).await;
    for language in ["xx", "", "EN", "en%0d%0aX:1", "%3Cscript%3E", "tr&lang=en"] {
        let (status, headers, body) = get(&format!("/docs?lang={language}"), &[]).await;
        assert_eq!(status, 400, "{language}");
        assert_eq!(told(&headers, "content-type"), "application/json");
        assert!(!String::from_utf8_lossy(&body).contains("script"));
    }
    for host in ["evil.example", "\"><script>", "127.0.0.1;script-src *"] {
        let forged = [("host", host), ("x-forwarded-host", host)];
        let (status, headers, body) = get("/docs", &forged).await;
        assert_eq!((status, &body), (StatusCode::OK, &page));
        let policy = "content-security-policy";
        assert_eq!(told(&headers, policy), told(&plain, policy));
    }
}

#[tokio::test]
async fn the_component_is_the_one_that_was_pinned_whether_it_comes_compressed_or_not() {
    for (accepts, packed) in [
        ("gzip", true),
        ("br, GZIP;q=0.5", true),
        ("br", false),
        ("gzip;q=0", false),
        ("gzip;q=x", false),
        ("", false),
    ] {
        let (status, headers, body) = get("/docs/scalar.js", &[("accept-encoding", accepts)]).await;
        assert_eq!(status, 200);
        let encoding = if packed { "gzip" } else { "" };
        assert_eq!(told(&headers, "content-encoding"), encoding, "{accepts}");
        assert_eq!(told(&headers, "vary"), "accept-encoding");
        let pinned = if packed { SCALAR_SHA256 } else { PLAIN_SHA256 };
        assert_eq!(hex::encode(Sha256::digest(&body)), pinned, "{accepts}");
        let etag = told(&headers, "etag");
        let known = [("accept-encoding", accepts), ("if-none-match", etag)];
        let (status, headers, body) = get("/docs/scalar.js", &known).await;
        assert_eq!((status.as_u16(), body.len()), (304, 0));
        assert_eq!(told(&headers, "content-encoding"), "");
    }
    let readme = include_str!("scalar/README.md");
    assert!(readme.contains(SCALAR_SHA256) && readme.contains(PLAIN_SHA256));
}

#[tokio::test]
async fn what_is_no_file_of_the_page_is_not_there() {
    for name in ["page.html", "..%2fpage.html", "scalar", "token", "a%00b"] {
        let (status, _, _) = get(&format!("/docs/{name}"), &[]).await;
        assert_eq!(status, 404, "{name}");
    }
}

#[test]
fn the_scripts_ask_nobody_else_and_make_no_scripts_of_texts() {
    for text in [
        include_str!("app.js"),
        include_str!("texts.json"),
        include_str!("style.css"),
        include_str!("page.html"),
    ] {
        for forbidden in [
            "http:",
            "https:",
            "innerHTML",
            "eval(",
            "onclick",
            "<script>",
        ] {
            assert!(!text.contains(forbidden), "{forbidden}");
        }
    }
}
