//! The page that tries the API out, in a real browser against the real binary. Pictures of it are kept in the folder
//! `playground` of cargo's folder for tests.

use std::collections::BTreeSet;
use std::path::Path;

use ledger::test_servers::postgres::Postgres;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::roles::{Stack, read_at};
use crate::service::{DEADLINE, DEMO_USER, Folder, Service, send};

mod servers;
mod token;

const PROFILE: &str = "/api/v1/users/profile";
const PHOTO: &str = "/api/v1/users/profile/photo";
const USERS: &str = "/api/v1/users";
/// The window in which a request is written, its button, and what came back.
const WINDOW: &str = ".scalar-client--open";
const SEND: &str = ".scalar-client--open button.bg-b-btn";
const ANSWER: &str = ".scalar-client--open .response-section-content .cm-content";

async fn open(service: &Service, query: &str) -> Browser {
    let url = format!("{}/docs{query}", service.url);
    Browser::open("playground", &url, "en").await
}

impl Browser {
    async fn there(&self, css: &str) {
        let script = format!("return !!document.querySelector({})", json!(css));
        self.until(&script).await;
    }

    /// Clicks without waiting for what comes of it: a question, say.
    async fn press_on(&self, css: &str) {
        self.there(css).await;
        let click = format!("document.querySelector({}).click()", json!(css));
        self.run(&format!("setTimeout(() => {click})")).await;
    }

    /// Opens an operation, and the window in which its request is written.
    async fn try_out(&self, tag: &str, method: Method, path: &str) {
        let group = format!("#tag/{tag}");
        let operation = format!("{group}/{method}{path}");
        let link = |hash: &str| format!("a[href={}]", json!(hash));
        let is_open = format!(
            "return !!document.querySelector({})",
            json!(link(&operation))
        );
        if self.run(&is_open).await != true {
            self.press_on(&link(&group)).await;
        }
        self.press_on(&link(&operation)).await;
        let section = format!("section[id$={}]", json!(&operation[1..]));
        self.says(&section, "curl ").await;
        self.press_on(&format!("{section} .show-api-client-button"))
            .await;
        self.there(SEND).await;
    }

    async fn close_window(&self) {
        self.press_on(".app-exit-button").await;
        let is_closed = format!("return !document.querySelector({})", json!(WINDOW));
        self.until(&is_closed).await;
    }

    /// Clicks on the element that says something, once it is there.
    async fn click_on_text(&self, css: &str, text: &str) {
        let click = format!(
            "const found = [...document.querySelectorAll({})].find((e) => e.textContent.includes({})); \
             found?.click(); return !!found",
            json!(css),
            json!(text)
        );
        self.until(&click).await;
    }

    async fn choose_server(&self, from: &str, to: &str) {
        self.click_on_text(".scalar-reference-intro-server button", from)
            .await;
        self.click_on_text("[role=option]", to).await;
    }

    /// Chooses a file where the component asks for one.
    async fn choose_file(&self, path: &Path) {
        // The dialogue for files is the browser's own, and is not opened: the element that asks for it is caught.
        self.run("HTMLInputElement.prototype.click = function () { this.id = 'chosen'; document.body.append(this); }")
            .await;
        self.click_on_text(".scalar-client--open button", "Select File")
            .await;
        self.there("#chosen").await;
        self.attach("#chosen", path).await;
    }

    /// Nothing failed, nothing was forbidden, nothing was asked of anybody but `others`.
    async fn was_quiet_but_for(&self, service: &Service, others: &[&str]) {
        let complaints = self.complaints().await;
        let complaints: Vec<_> = complaints
            .into_iter()
            // The component tells its version.
            .filter(|message| !message.ends_with("\"@scalar/api-reference@1.72.1\""))
            .collect();
        assert_eq!(complaints, [""; 0], "what the browser complained about");
        for address in self.asked_for().await {
            let is_allowed = |url: &str| address.starts_with(&format!("{url}/"));
            let is_own = is_allowed(&service.url) || others.iter().any(|url| is_allowed(url));
            assert!(is_own || address.starts_with("data:"), "{address}");
        }
    }
}

#[tokio::test]
async fn a_newcomer_reads_writes_and_uploads_without_pasting_anything() {
    let folder = Folder::new();
    let service = folder.start();
    assert!(service.banner.contains(&format!("{}/docs\n", service.url)));
    let browser = open(&service, "").await;
    browser.says("h1", "Profile Ledger").await;
    browser
        .says("#reference", "JWT, without the Bearer prefix")
        .await;
    browser.shot("opened").await;

    browser.try_out("profile", Method::GET, PROFILE).await;
    browser.press_on(SEND).await;
    browser.says(ANSWER, DEMO_USER).await;
    browser.shot("read").await;
    browser.close_window().await;

    browser.try_out("profile", Method::PUT, PROFILE).await;
    browser.press_on(SEND).await;
    browser
        .says(ANSWER, "Passionate about technology and travel")
        .await;
    browser.shot("written").await;
    browser.close_window().await;

    browser.try_out("photo", Method::PATCH, PHOTO).await;
    let photo = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dev/demo-photo.jpg");
    browser.choose_file(&photo).await;
    browser.says(WINDOW, "demo-photo.jpg").await;
    browser.press_on(SEND).await;
    browser.says(ANSWER, "512.webp").await;
    browser.shot("uploaded").await;
    browser.was_quiet_but_for(&service, &[]).await;

    let token = service.token(DEMO_USER, "user");
    let profile = service.get(PROFILE, &token).await;
    // Registered, replaced, and with another photo.
    assert_eq!(profile.header("etag"), "\"3\"");
    assert!(profile.data()["profilePhoto"]["url"].is_string());
}

#[tokio::test]
async fn every_operation_has_a_curl_line_and_is_answered_as_it_is_filled_in() {
    let folder = Folder::new();
    let service = folder.start();
    let described = send(service.request(Method::GET, "/openapi.json")).await;
    // Proofs are of what was signed.
    let token = service.token("auditor", "auditor");
    let signed = async {
        let path = "/api/v1/log/checkpoint?minPosition=1";
        while service.get(path, &token).await.status != StatusCode::OK {}
    };
    tokio::time::timeout(DEADLINE, signed).await.unwrap();
    let browser = open(&service, "").await;
    let mut others = Vec::new();
    for (path, item) in described.body["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let tag = operation["tags"][0].as_str().unwrap().to_lowercase();
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            browser.try_out(&tag, method.clone(), path).await;
            browser.press_on(SEND).await;
            let status = format!(
                "const text = document.querySelector({}).innerText + document.body.innerText.slice(-200); \
                 return (/\\b([1-5]\\d\\d) (?!KB|MB)[A-Z][A-Za-z]/.exec(text) ?? /(Path parameters) must have values/.exec(text))?.[1] ?? ''",
                json!(WINDOW)
            );
            browser
                .until(&status.replace("return (", "return !!("))
                .await;
            let status = browser.run(&status).await;
            if status != "200" {
                others.push(format!("{method} {path}: {}", status.as_str().unwrap()));
            }
            browser.close_window().await;
        }
    }
    // The name is the demo user's, which has another one after the fourth; a file is to be chosen; and which photos there
    // are, profiles tell.
    let expected = [
        "POST /api/v1/users: 409",
        "PATCH /api/v1/users/profile/photo: 400",
        "GET /api/v1/users/profile/username/{username}: 404",
        "GET /media/users/{userId}/photos/{hash}/{photoId}/{file}: Path parameters",
    ];
    assert_eq!(others, expected);
    let kept = "return JSON.stringify({...localStorage, ...sessionStorage}).includes('eyJ') || document.cookie !== ''";
    assert_eq!(browser.run(kept).await, false, "a token stays in the page");
}

fn operations(description: &Value) -> BTreeSet<String> {
    let paths = description["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys();
        methods.map(move |method| format!("{method} {path}"))
    });
    operations.collect()
}

#[tokio::test]
async fn each_role_describes_its_own_part_and_its_page_shows_and_sends_that() {
    let stack = Stack::new(Postgres::shared()).await;
    let roles = ["command-api", "projector", "query-api"].map(|role| stack.start(role));
    let mut parts = Vec::new();
    for role in &roles {
        let answer = send(role.request(Method::GET, "/openapi.json?lang=tr")).await;
        parts.push(operations(&answer.body));
    }
    let whole = include_str!("../../../api/openapi.json");
    let whole = operations(&serde_json::from_str(whole).unwrap());
    let together: BTreeSet<_> = parts.iter().flatten().cloned().collect();
    assert_eq!(together, whole);
    let [commands, projector, queries] = &parts[..] else {
        unreachable!()
    };
    let (write, read) = (format!("put {PROFILE}"), format!("get {PROFILE}"));
    assert!(commands.contains(&write) && !queries.contains(&write));
    assert!(queries.contains(&read) && !commands.contains(&read));
    assert!(projector.is_subset(commands) && projector.is_subset(queries));

    let [commands, projector, queries] = &roles;
    let browser = open(commands, "").await;
    browser.try_out("profile", Method::PUT, PROFILE).await;
    browser.press_on(SEND).await;
    let bio = "Passionate about technology and travel";
    browser.says(ANSWER, bio).await;
    browser.was_quiet_but_for(commands, &[]).await;

    // Registered and replaced.
    read_at(queries, &queries.token(DEMO_USER, "user"), "2").await;
    let browser = open(queries, "").await;
    browser.try_out("profile", Method::GET, PROFILE).await;
    browser.press_on(SEND).await;
    browser.says(ANSWER, bio).await;
    browser.was_quiet_but_for(queries, &[]).await;

    let browser = open(projector, "").await;
    browser.try_out("operations", Method::GET, "/readyz").await;
    browser.press_on(SEND).await;
    browser.says(ANSWER, "applied").await;
    browser.shot("projector").await;
    browser.was_quiet_but_for(projector, &[]).await;
}

#[tokio::test]
async fn our_sentence_is_shown_as_it_is_in_the_language_of_the_page() {
    let folder = Folder::new();
    let service = folder.start();
    let described = send(service.request(Method::GET, "/openapi.json")).await;
    let body = &described.body["paths"][USERS]["post"]["requestBody"]["content"];
    let body = &body["application/json"]["example"];
    let token = service.token("sign-up", "service");
    // Somebody has the name of the example by then.
    service.send_json(Method::POST, USERS, &token, body).await;
    for (query, language) in [("?lang=tr", "tr"), ("?lang=en", "en")] {
        let refused = service.request(Method::POST, USERS).bearer_auth(&token);
        let refused = send(refused.header("x-language", language).json(body)).await;
        assert!(refused.status.is_client_error(), "{refused:?}");
        let sentence = refused.body["errors"][0].as_str().unwrap();

        let browser = open(&service, query).await;
        assert_eq!(
            browser.run("return document.documentElement.lang").await,
            language
        );
        browser.try_out("users", Method::POST, USERS).await;
        browser.press_on(SEND).await;
        browser.says(ANSWER, sentence).await;
        browser.shot(&format!("refused-{language}")).await;
        let others = browser.asked_for().await;
        assert!(
            others
                .iter()
                .all(|url| url.starts_with(&service.url) || url.starts_with("data:"))
        );
    }
}
