//! Other servers than the one of the page: what is sent there, and after which question.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use reqwest::Method;
use serde_json::json;
use tokio::net::TcpListener;

use super::{ANSWER, PHOTO, PROFILE, SEND, USERS, open, operations};
use crate::browser::{Browser, PHONE};
use crate::service::{DEMO_USER, Folder, Service, command, send};

/// Every operation that changes data, with its group.
const CHANGES: [(&str, Method, &str); 4] = [
    ("users", Method::POST, USERS),
    ("profile", Method::PUT, PROFILE),
    ("photo", Method::PATCH, PHOTO),
    ("profile", Method::PATCH, "/api/v1/users/username"),
];

/// Another server, which lets pages of any origin ask it, and answers everything with a success.
#[derive(Clone, Default)]
struct Elsewhere {
    url: String,
    asked: Arc<Mutex<Vec<(Method, String, HeaderMap)>>>,
    /// The service that answers what is not below [`BELOW`], as behind a gateway.
    behind: Arc<OnceLock<String>>,
}

const BELOW: &str = "/production";

impl Elsewhere {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let elsewhere = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            ..Self::default()
        };
        let router = Router::new().fallback(answer).with_state(elsewhere.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        elsewhere
    }

    /// What it was asked, but for the questions of browsers whether a page may.
    fn asked(&self) -> Vec<(Method, String, HeaderMap)> {
        let asked = self.asked.lock().unwrap().clone();
        let is_asked = |(method, _, _): &(Method, String, HeaderMap)| *method != Method::OPTIONS;
        asked.into_iter().filter(is_asked).collect()
    }
}

async fn answer(State(elsewhere): State<Elsewhere>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    if let Some(url) = elsewhere.behind.get().filter(|_| !path.starts_with(BELOW)) {
        let client = reqwest::Client::new();
        let onward = client.request(parts.method, format!("{url}{}", parts.uri));
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let answer = onward.headers(parts.headers).body(body).send().await;
        let answer = answer.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        return (status, headers, answer.bytes().await.unwrap()).into_response();
    }
    let asked = (parts.method, path, parts.headers);
    elsewhere.asked.lock().unwrap().push(asked);
    let allowed = [
        ("content-type", "application/json"),
        ("access-control-allow-origin", "*"),
        ("access-control-allow-headers", "*, authorization"),
        ("access-control-allow-methods", "*"),
    ];
    (allowed, r#"{"isSuccess":true,"data":"from elsewhere"}"#).into_response()
}

fn start(folder: &Folder, servers: &str) -> Service {
    let mut serving = command(&folder.data_dir());
    serving.env("API_SERVERS", servers);
    folder.start_with(serving)
}

#[tokio::test]
async fn what_changes_data_on_another_server_is_marked_and_asked_about_once() {
    let elsewhere = Elsewhere::start().await;
    let folder = Folder::new();
    let service = start(&folder, &format!("Production={}", elsewhere.url));
    let described = send(service.request(Method::GET, "/openapi.json")).await;
    let mut changing = operations(&described.body);
    changing.retain(|one| !one.starts_with("get ") && !one.ends_with("/check-username"));
    let known = CHANGES.map(|(_, method, path)| {
        let method = method.as_str().to_lowercase();
        format!("{method} {path}")
    });
    assert_eq!(changing, BTreeSet::from(known));
    for (language, marked, question, not_sent) in [
        (
            "en",
            "This operation changes data on the chosen server",
            "PUT /api/v1/users/profile changes data on Production.",
            "The request was not sent.",
        ),
        (
            "tr",
            "Bu işlem, seçili sunucuda veri değiştirir",
            "PUT /api/v1/users/profile, Production sunucusunda veri değiştirir.",
            "İstek gönderilmedi.",
        ),
    ] {
        elsewhere.asked.lock().unwrap().clear();
        let browser = open(&service, &format!("?lang={language}")).await;
        let marks = "return [...document.querySelectorAll('.markdown-alert-warning')].filter((e) => e.checkVisibility()).length";
        browser.try_out("profile", Method::PUT, PROFILE).await;
        browser.close_window().await;
        browser.there(".markdown-alert-warning").await;
        assert_eq!(
            browser.run(marks).await,
            0,
            "this server is only for trying"
        );
        assert_eq!(browser.text("#warning").await, "");
        browser.choose_server(&service.url, &elsewhere.url).await;
        browser.says("#warning", "Production").await;

        // What only reads is sent at once, and not with the token of development mode.
        browser.try_out("profile", Method::GET, PROFILE).await;
        browser.press_on(SEND).await;
        browser.says(ANSWER, "from elsewhere").await;
        browser.close_window().await;
        let asked = elsewhere.asked();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].2.get("authorization"), None);

        for (tag, method, path) in CHANGES {
            browser.try_out(tag, method.clone(), path).await;
            let mark = format!("section[id$=\"{method}{path}\"] .markdown-alert-warning");
            browser.says(&mark, marked).await;
            browser.close_window().await;
        }
        browser.shot(&format!("elsewhere-{language}")).await;
        browser.try_out("profile", Method::PUT, PROFILE).await;
        browser.press_on(SEND).await;
        let asked = browser.question().await;
        assert!(asked.starts_with(question), "{asked}");
        assert!(asked.contains(&elsewhere.url), "{asked}");
        browser.answer(false).await;
        browser.says("body", not_sent).await;
        assert_eq!(elsewhere.asked().len(), 1, "nothing was sent");

        browser.press_on(SEND).await;
        browser.question().await;
        browser.answer(true).await;
        browser.says(ANSWER, "from elsewhere").await;
        assert!(!browser.has_alert().await, "it asks once");
        let asked = elsewhere.asked();
        assert_eq!((asked.len(), &asked[1].0), (2, &Method::PUT));
        browser.shot(&format!("sent-{language}")).await;
        browser.close_window().await;

        // Back here nothing is marked or asked about.
        browser.choose_server(&elsewhere.url, &service.url).await;
        browser
            .until("return document.querySelector('#warning').textContent === ''")
            .await;
        assert_eq!(browser.run(marks).await, 0);
    }
    let profile = service
        .get(PROFILE, &service.token(DEMO_USER, "user"))
        .await;
    let version = profile.header("etag");
    assert_eq!(version, "\"1\"", "nothing was sent here");
}

/// Another server with a service behind it, whose page is opened there.
async fn behind(servers: impl Fn(&str) -> String) -> (Elsewhere, Folder, Service, Browser) {
    let gateway = Elsewhere::start().await;
    let folder = Folder::new();
    let service = start(&folder, &servers(&gateway.url));
    gateway.behind.set(service.url.clone()).unwrap();
    let url = format!("{}/docs?lang=en", gateway.url);
    let browser = Browser::open("playground", &url, "en").await;
    (gateway, folder, service, browser)
}

#[tokio::test]
async fn a_server_below_this_one_is_another_server() {
    let (gateway, _folder, service, browser) =
        behind(|url| format!("Production={url}{BELOW}")).await;
    let below = format!("{}{BELOW}", gateway.url);
    browser.try_out("profile", Method::PUT, PROFILE).await;
    browser.press_on(SEND).await;
    browser.says(ANSWER, "Passionate about technology").await;
    browser.close_window().await;

    browser.choose_server(&gateway.url, &below).await;
    browser
        .says("#warning", &format!("Production ({below})"))
        .await;
    browser.try_out("profile", Method::PUT, PROFILE).await;
    browser.press_on(SEND).await;
    let asked = browser.question().await;
    let path = format!("PUT {BELOW}{PROFILE} changes data on Production.");
    assert!(asked.starts_with(&path), "{asked}");
    browser.answer(true).await;
    browser.says(ANSWER, "from elsewhere").await;
    let asked = gateway.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].2.get("authorization"), None);
    let own = service
        .get(PROFILE, &service.token(DEMO_USER, "user"))
        .await;
    assert_eq!(own.header("etag"), "\"2\"", "what was sent here");
}

#[tokio::test]
async fn a_page_whose_own_server_has_a_name_is_as_careful_there_as_elsewhere() {
    let (gateway, _folder, service, browser) =
        behind(|url| format!("Test=https://test.example,Production={url}")).await;
    browser
        .says("#warning", &format!("Production ({})", gateway.url))
        .await;
    browser.try_out("profile", Method::PUT, PROFILE).await;
    browser.press_on(SEND).await;
    let asked = browser.question().await;
    let path = format!("PUT {PROFILE} changes data on Production.");
    assert!(asked.starts_with(&path), "{asked}");
    browser.answer(true).await;
    browser.says(ANSWER, "Passionate about technology").await;
    browser.shot("own-server-with-a-name").await;
    let own = service
        .get(PROFILE, &service.token(DEMO_USER, "user"))
        .await;
    assert_eq!(own.header("etag"), "\"2\"", "what was sent here");
}

#[tokio::test]
async fn the_policy_lets_the_page_ask_the_named_servers_only() {
    let (named, other) = (Elsewhere::start().await, Elsewhere::start().await);
    let folder = Folder::new();
    let service = start(&folder, &format!("Production={}", named.url));
    let browser = open(&service, "?lang=en").await;
    browser.size(PHONE).await;
    browser.shot("phone").await;
    browser.was_quiet_but_for(&service, &[]).await;
    for (url, is_reached) in [(&named.url, true), (&other.url, false)] {
        let ask = format!(
            "return await fetch({}).then(() => true, () => false)",
            json!(url)
        );
        assert_eq!(browser.run(&ask).await, is_reached, "{url}");
    }
    assert_eq!((named.asked().len(), other.asked().len()), (1, 0));
    // No text becomes a script.
    browser
        .run(
            "const s = document.createElement('script'); s.textContent = 'globalThis.ran = 1'; document.body.append(s); \
             setTimeout('globalThis.ran = 2'); setTimeout(() => { globalThis.later = true })",
        )
        .await;
    browser.until("return globalThis.later === true").await;
    assert_eq!(browser.run("return globalThis.ran ?? 0").await, 0);
}
