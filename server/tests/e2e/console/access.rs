//! Which token the page has, and who gets that of development mode.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use thirtyfour::Key;

use super::GOOD;
use crate::browser::Browser;
use crate::service::{Folder, command, send};

#[tokio::test]
async fn outside_of_development_mode_a_token_is_pasted_and_kept_for_the_tab_only() {
    let secret = "a secret of at least thirty-two bytes";
    let folder = Folder::new();
    let mut serving = command(&folder.data_dir());
    serving.env("JWT_SECRET", secret);
    let service = folder.start_with(serving);
    let token = |role: &str| {
        let mut making = command(&folder.data_dir());
        making.env("JWT_SECRET", secret);
        let made = making
            .args(["token", "--user", "eve", "--role", role])
            .output()
            .unwrap();
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    };
    let made = service
        .send_json(
            Method::POST,
            "/api/v1/users",
            &token("service"),
            &json!({"username": "jane", "name": "Jane", "surname": "Doe"}),
        )
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");

    let browser = Browser::open("console", &format!("{}/console", service.url), "en").await;
    browser.says("#access", "Paste a token").await;
    browser.shot("no-token").await;
    browser.fill("#token", "no.such.token").await;
    browser.press(Key::Enter).await;
    browser.says("#access-text", "The token was refused").await;
    // A token that allows too little is told so by the service.
    browser.fill("#token", &token("user")).await;
    browser.press(Key::Enter).await;
    browser
        .says("#live-status", "Insufficient permissions")
        .await;
    browser.click("#access-button").await;
    browser.fill("#token", &token("auditor")).await;
    browser.press(Key::Enter).await;
    browser.says("#live-status", "Connected").await;
    browser.fill("#search", "jane").await;
    browser.says("#found", "@jane").await;
    browser.click("#found button").await;
    browser.says(GOOD, "Verified").await;
    let kept =
        "return [JSON.stringify(localStorage), document.cookie].some((one) => one.includes('eyJ'))";
    assert_eq!(browser.run(kept).await, false, "nowhere but in the tab");
    browser.reload().await;
    browser.says("#live-status", "Connected").await;
    browser.click("#access-button").await;
    browser.click("#forget").await;
    browser.says("#live-status", "Not connected").await;
    browser.says("#nobody", "Find a user").await;
    assert_eq!(browser.run("return sessionStorage.length").await, 0);
}

#[tokio::test]
async fn no_other_site_gets_the_token_of_development_mode() {
    let folder = Folder::new();
    let service = folder.start();
    let port = service.url.rsplit_once(':').unwrap().1;
    let ask = async |site: Option<&str>, host: &str, origin: Option<&str>| {
        let mut request = service
            .request(Method::GET, "/console/token")
            .header("host", host);
        if let Some(site) = site {
            request = request.header("sec-fetch-site", site);
        }
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        send(request).await
    };
    let here = format!("127.0.0.1:{port}");
    let given = ask(Some("same-origin"), &here, None).await;
    let token = given.data()["token"].as_str().unwrap();
    let reads = service.get("/api/v1/audit/reads", token).await;
    assert_eq!(reads.status, StatusCode::OK);
    let registers = service
        .send_json(
            Method::POST,
            "/api/v1/users",
            token,
            &json!({"username": "x"}),
        )
        .await;
    assert_eq!(registers.status, StatusCode::FORBIDDEN, "it only reads");
    let rebound = format!("evil.example:{port}");
    for (site, host, origin) in [
        (None, here.as_str(), None),
        (Some("cross-site"), &here, Some("http://evil.example")),
        (Some("same-site"), &here, Some("http://127.0.0.1:1")),
        (Some("none"), &here, None),
        (Some("same-origin"), &rebound, None),
    ] {
        let refused = ask(site, host, origin).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{site:?} {host}");
        assert_eq!(refused.body["data"], Value::Null);
        assert_eq!(refused.header("access-control-allow-origin"), "");
    }
    assert_eq!(given.header("access-control-allow-origin"), "");
    assert_eq!(given.header("cache-control"), "no-store");
}
